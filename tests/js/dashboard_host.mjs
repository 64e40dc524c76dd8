// The host of the dashboard: what a chat client does for a view, with the AppBridge of the MCP Apps SDK itself.
// Runs in the browser, bundled by dashboard.mjs. `window.host` is what the walk drives.
import { AppBridge, PostMessageTransport } from "@modelcontextprotocol/ext-apps/app-bridge";

const ALL = { serverTools: {}, updateModelContext: { text: {} }, message: { text: {} } };
let bridge;

/** Put a view into a new frame, as after a call of a tool, and give it what was called and what came of it. */
async function mount(html, { input = {}, result, capabilities = ALL, context = {} }) {
  await bridge?.close();
  document.querySelector("iframe")?.remove();
  const frame = document.createElement("iframe");
  frame.sandbox = "allow-scripts";
  frame.title = "view";
  Object.assign(frame.style, { width: "100%", height: "600px", border: "0" });
  document.body.append(frame);
  bridge = new AppBridge(null, { name: "test-host", version: "1" }, capabilities, {
    hostContext: { theme: "light", locale: "en-GB", timeZone: "UTC", ...context },
  });
  bridge.oncalltool = ({ name, arguments: given }) => window.callTool(name, given ?? {});
  bridge.onmessage = async (message) => {
    await window.tell("message", message);
    return {};
  };
  bridge.onupdatemodelcontext = async (update) => {
    await window.tell("context", update);
    return {};
  };
  bridge.onsizechange = ({ height }) => {
    frame.style.height = `${height}px`;
    window.tell("height", height);
  };
  const isReady = new Promise((resolve) => (bridge.oninitialized = resolve));
  await bridge.connect(new PostMessageTransport(frame.contentWindow, frame.contentWindow));
  frame.srcdoc = html;
  await isReady;
  await bridge.sendToolInput({ arguments: input });
  if (result) await bridge.sendToolResult(result);
}

window.host = {
  mount,
  result: (result) => bridge.sendToolResult(result),
  cancelled: (reason) => bridge.sendToolCancelled({ reason }),
  context: (context) => bridge.sendHostContextChange(context),
  teardown: () => bridge.teardownResource({}),
};
