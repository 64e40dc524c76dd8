// The TypeScript client of MCP (v2), over stdio, in the era that is the second argument.
import assert from "node:assert/strict";

import { Client } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

import { converse, given } from "./ground.mjs";

const ground = given();
const mode = { legacy: "legacy", modern: { pin: "2026-07-28" } }[process.argv[3]];
const client = new Client({ name: "typescript", version: "1" }, { versionNegotiation: { mode } });
await client.connect(new StdioClientTransport({ command: ground.command, args: ground.args, env: ground.env, cwd: ground.cwd }));
await converse(ground, client);
assert.ok((await client.listPrompts()).prompts.length);
assert.ok((await client.readResource({ uri: "gemini-batch://models" })).contents.length);
await client.close();
