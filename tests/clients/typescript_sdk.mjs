// The TypeScript SDK of MCP before its second version, which most hosts still have, over stdio.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";

import { converse, given } from "./ground.mjs";

const ground = given();
const client = new Client({ name: "typescript-sdk", version: "1" });
await client.connect(new StdioClientTransport({ command: ground.command, args: ground.args, env: ground.env, cwd: ground.cwd }));
await converse(ground, client);
await client.close();
