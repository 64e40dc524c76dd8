// What ground.py is to clients in Python: what each is given, and the conversation, for clients in JavaScript.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

const KEYS = ["k1", "k2", "k3"];

export const given = () => JSON.parse(readFileSync(process.argv[2], "utf8"));

export async function converse(ground, client) {
  const { tools } = await client.listTools();
  assert.deepEqual(tools.map((tool) => tool.name).sort(), [...ground.tools].sort());

  // The client itself holds each structured result against the tool's output schema.
  const call = async (name, given) => {
    const result = await client.callTool({ name, arguments: given });
    assert.ok(!result.isError, JSON.stringify(result.content));
    return result.structuredContent;
  };
  const preview = await call("preview_batch", { source: ground.source });
  assert.equal(preview.ok, true);
  assert.equal(preview.request_count, KEYS.length);
  const { batch_id: batch } = await call("create_batch", { source: ground.source, confirm: true });
  let status;
  for (let look = 0; look < 10 && !status?.done; look++) {
    status = await call("check_status", { batch, wait_seconds: 5 });
  }
  assert.equal(status.state, "JOB_STATE_SUCCEEDED");
  const page = await call("get_results", { batch, view: "rows", limit: 50 });
  assert.deepEqual(page.rows.map((row) => [row.key, row.status]), KEYS.map((key) => [key, "ok"]));
  const { saved } = await call("get_results", { batch, save_to: ground.saved });
  assert.equal(saved.rows, KEYS.length);
}
