// Drives the sandbox on a port with Google's JavaScript SDK.
//
//   node sdk.mjs BASE_URL DIRECTORY MEGABYTES
//
// Jobs of the sandbox must move with reads. Prints what came back as one JSON object; a failed expectation throws.

import assert from "node:assert/strict";
import { once } from "node:events";
import { createWriteStream, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { GoogleGenAI } from "@google/genai";

const [baseUrl, directory, megabytes] = process.argv.slice(2);
const MODEL = "gemini-3.8-flash";
const EMBEDDING_MODEL = "gemini-embedding-2";
const ai = new GoogleGenAI({ apiKey: "js-test", httpOptions: { baseUrl, apiVersion: "v1beta" } });

async function writeRequests(path, bytes) {
  const file = createWriteStream(path);
  const text = "The parcel came late. ".repeat(400);
  let written = 0;
  let rows = 0;
  while (written < bytes) {
    const request = { contents: [{ role: "user", parts: [{ text: `Row ${rows}: ${text}` }] }] };
    const line = JSON.stringify({ key: `row-${rows}`, request }) + "\n";
    written += Buffer.byteLength(line);
    rows += 1;
    if (!file.write(line)) await once(file, "drain");
  }
  file.end();
  await once(file, "finish");
  return rows;
}

async function finished(name) {
  for (let reads = 0; reads < 20; reads += 1) {
    const job = await ai.batches.get({ name });
    if (["JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED"].includes(job.state)) return job;
  }
  throw new Error(`${name} did not end`);
}

async function answers(fileName, path) {
  await ai.files.download({ file: fileName, downloadPath: path });
  const lines = readFileSync(path, "utf8").split("\n").filter((line) => line !== "");
  return lines.map((line) => JSON.parse(line));
}

const input = join(directory, "in.jsonl");
const rows = await writeRequests(input, Number(megabytes) * 1024 * 1024);
const uploaded = await ai.files.upload({ file: input, config: { mimeType: "jsonl", displayName: "js in" } });
assert.equal(Number(uploaded.sizeBytes), statSync(input).size);

const created = await ai.batches.create({
  model: MODEL,
  src: { fileName: uploaded.name },
  config: { displayName: "js batch" },
});
assert.equal(created.state, "JOB_STATE_PENDING");
const job = await finished(created.name);
assert.equal(job.state, "JOB_STATE_SUCCEEDED");
const output = await answers(job.dest.fileName, join(directory, "out.jsonl"));
assert.deepEqual(new Set(output.map((row) => row.key)).size, rows);
assert.ok(output.every((row) => row.response.candidates[0].content.parts[0].text.startsWith("[sandbox]")));

const inline = await ai.batches.create({
  model: MODEL,
  src: {
    inlinedRequests: [
      { contents: [{ role: "user", parts: [{ text: "one" }] }], metadata: { key: "a" } },
      { contents: [{ role: "user", parts: [{ text: "two" }] }], metadata: { key: "b" } },
    ],
  },
  config: { displayName: "js inline" },
});
const inlined = (await finished(inline.name)).dest.inlinedResponses;
assert.deepEqual(inlined.map((row) => row.metadata.key), ["a", "b"]);
assert.ok(inlined.every((row) => row.response.candidates[0].content.parts[0].text.startsWith("[sandbox]")));

const embedInput = join(directory, "embed.jsonl");
const embedLines = createWriteStream(embedInput);
for (const key of ["e1", "e2"]) {
  const request = { content: { parts: [{ text: `text of ${key}` }] }, outputDimensionality: 768 };
  embedLines.write(JSON.stringify({ key, request }) + "\n");
}
embedLines.end();
await once(embedLines, "finish");
const embedFile = await ai.files.upload({ file: embedInput, config: { mimeType: "jsonl" } });
const embedding = await ai.batches.createEmbeddings({
  model: EMBEDDING_MODEL,
  src: { fileName: embedFile.name },
  config: { displayName: "js embed" },
});
const vectors = await answers((await finished(embedding.name)).dest.fileName, join(directory, "embed.out.jsonl"));
assert.deepEqual(vectors.map((row) => row.response.embedding.values.length), [768, 768]);

const embedInline = await ai.batches.createEmbeddings({
  model: EMBEDDING_MODEL,
  src: { inlinedRequests: { contents: ["river ferry", "night bus"], config: { outputDimensionality: 256 } } },
  config: { displayName: "js embed inline" },
});
const inlinedVectors = (await finished(embedInline.name)).dest.inlinedEmbedContentResponses;
assert.deepEqual(inlinedVectors.map((row) => row.response.embedding.values.length), [256, 256]);

const doomed = await ai.batches.create({ model: MODEL, src: { fileName: uploaded.name } });
await ai.batches.cancel({ name: doomed.name });
assert.equal((await finished(doomed.name)).state, "JOB_STATE_CANCELLED");
await ai.batches.delete({ name: doomed.name });
await assert.rejects(ai.batches.get({ name: doomed.name }), /404|NOT_FOUND/);

const listed = [];
for await (const one of await ai.batches.list({ config: { pageSize: 2 } })) listed.push(one.name);
assert.deepEqual(listed, [embedInline, embedding, inline, created].map((one) => one.name));

const files = [];
for await (const one of await ai.files.list({ config: { pageSize: 2 } })) files.push(one.name);
assert.equal(files.length, 4);
await ai.files.delete({ name: uploaded.name });
await assert.rejects(ai.files.get({ name: uploaded.name }), /404|NOT_FOUND/);

const { totalTokens } = await ai.models.countTokens({ model: MODEL, contents: "Sort this note." });
const models = [];
for await (const model of await ai.models.list()) models.push(model.name);
assert.ok(models.includes(`models/${MODEL}`));

console.log(JSON.stringify({ rows, jobs: listed.length, files: files.length, totalTokens, models: models.length }));
