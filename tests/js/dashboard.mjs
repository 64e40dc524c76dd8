// Walks through the dashboard in Chromium, inside a host, and prints as JSON what there was to see. What the view and
// the walk ask for is asked on stdout, a line each, and answered on stdin by the test, which holds the server.
// Arguments: the browser's program, a new directory for its profile, and where pictures go (empty: nowhere).
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { build } from "esbuild";
import { chromium } from "playwright-core";

const [program, profile, pictures] = process.argv.slice(2);
const FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-lcd-text"];
const seen = { requests: [], messages: [], errors: [], dialogs: [], calls: [], told: [], heights: 0 };

// The test on the other side of stdin and stdout.
const open = new Map();
let lastId = 0;
createInterface({ input: process.stdin }).on("line", (line) => {
  const { id, result } = JSON.parse(line);
  open.get(id)(result);
});
function ask(what, name, given = {}) {
  const id = ++lastId;
  process.stdout.write(`${JSON.stringify({ id, what, name, arguments: given })}\n`);
  return new Promise((resolve) => open.set(id, resolve));
}

// The browser.
const bundled = await build({ entryPoints: ["dashboard_host.mjs"], bundle: true, write: false, format: "iife", logLevel: "error" });
const browser = await chromium.launchPersistentContext(profile, { executablePath: program, headless: true, args: FLAGS, viewport: { width: 760, height: 1000 }, deviceScaleFactor: pictures ? 1.25 : 1 });
browser.setDefaultTimeout(20_000);
await browser.route("**", (route) => {
  seen.requests.push(route.request().url());
  return route.abort();
});
/** What the view runs before its own script: time passes in it when the walk says so. Playwright's clock and its init
 *  scripts may come after the view's script, as a sandboxed frame is a process of its own. */
function standingClock() {
  document.currentScript.remove();
  const timers = new Map();
  let now = 0, lastTimer = 0;
  window.setTimeout = (action, ms) => timers.set(++lastTimer, { action, at: now + ms }) && lastTimer;
  window.clearTimeout = (timer) => timers.delete(timer);
  window.pass = (ms) => {
    const end = now + ms;
    for (;;) {
      const [timer, { action, at } = {}] = [...timers].sort(([, one], [, other]) => one.at - other.at)[0] ?? [];
      now = Math.min(at ?? end, end);
      if (timer === undefined || at > end) return;
      timers.delete(timer);
      action();
    }
  };
}
const page = await browser.newPage();
page.on("console", (message) => message.type() === "debug" || seen.messages.push(message.text()));
page.on("pageerror", (error) => seen.errors.push(String(error)));
page.on("dialog", (dialog) => {
  seen.dialogs.push(dialog.message());
  return dialog.dismiss();
});
let broken = "";
await page.exposeFunction("callTool", async (name, given) => {
  seen.calls.push([name, given]);
  if (broken) return { isError: true, content: [{ type: "text", text: broken }] };
  return ask("tool", name, given);
});
await page.exposeFunction("tell", (kind, value) => {
  if (kind === "height") seen.heights += 1;
  else seen.told.push([kind, value]);
});
await page.setContent("<!doctype html><title>host</title><style>body{margin:0}</style>");
await page.addScriptTag({ content: bundled.outputFiles[0].text });
const view = page.frameLocator("iframe");
const at = (id) => view.locator(`#${id}`);
const press = (key) => page.keyboard.press(key);

const html = (await ask("page")).replace("<head>", `<head><script>(${standingClock})()</script>`);
const host = (name, ...given) => page.evaluate(([name, given]) => window.host[name](...given), [name, given]);
/** Show a view as after this call of the assistant's. */
async function called(name, input, more = {}) {
  seen.calls = [];
  seen.told = [];
  const result = await ask("tool", name, input);
  await host("mount", html, { input, result, ...more });
  return result;
}
/** Wait until nothing is under way in the view. */
const settled = () => view.locator("main[aria-busy=false]").waitFor();
/** Let time pass, and what then happens come to its end; returns the tools that the view called. */
async function after(seconds) {
  const before = seen.calls.length;
  await view.locator("html").evaluate((_, ms) => window.pass(ms), seconds * 1000);
  await settled();
  return seen.calls.slice(before).map(([name]) => name);
}
async function until(locator, text) {
  await locator.filter({ hasText: text }).first().waitFor();
}

/** What the view shows now, and where the keyboard is. */
function look() {
  return view.locator("html").evaluate((root) => {
    const visible = (node) => node.checkVisibility() && !node.closest(".unseen");
    const texts = (selector) => [...root.querySelectorAll(selector)].filter(visible).map((node) => node.innerText.trim());
    const meter = root.querySelector("#meter");
    const focus = document.activeElement;
    return {
      title: texts("#title")[0],
      state: texts("#state")[0],
      share: texts("#share")[0],
      rows: texts("#rows")[0],
      legend: texts("#legend li"),
      meter: meter.checkVisibility() ? [meter.role, meter.getAttribute("aria-valuenow"), meter.getAttribute("aria-valuemax"), meter.getAttribute("aria-valuetext")] : null,
      facts: Object.fromEntries([...root.querySelectorAll("#facts div")].map((pair) => [...pair.children].map((part) => part.textContent))),
      note: texts("#note")[0] ?? "",
      said: root.querySelector("#said").textContent,
      consent: texts("#consent p:first-child")[0] ?? "",
      buttons: texts("button:not(#panel button, #list button)"),
      tab: texts("[role=tab][aria-selected=true]"),
      fields: Object.fromEntries([...root.querySelectorAll("#panel figure")].map((one) => [one.querySelector("h2").textContent, [...one.querySelectorAll(".count")].map((line) => [line.firstChild.textContent, line.lastChild.textContent])])),
      captions: texts("caption"),
      head: texts("thead th"),
      scopes: [...new Set([...root.querySelectorAll("th")].map((cell) => cell.scope))],
      table: [...root.querySelectorAll("table")].filter(visible).map((table) => [...table.tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.innerText.trim()))),
      pager: [...root.querySelectorAll("nav > *")].filter(visible).map((part) => part.textContent + (part.getAttribute("aria-disabled") === "true" ? " (off)" : "")),
      focus: focus === document.body ? "" : focus.id || focus.innerText,
      width: root.scrollWidth,
    };
  });
}
async function picture(name) {
  if (!pictures) return;
  await mkdir(pictures, { recursive: true });
  for (const theme of ["light", "dark"]) {
    await host("context", { theme });
    // The frame is a process of its own, and paints when it comes to it.
    const painted = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    await view.locator("html").evaluate(painted);
    await page.evaluate(painted);
    await page.locator("iframe").screenshot({ path: join(pictures, `${name}-${theme}.png`), animations: "disabled" });
  }
  await host("context", { theme: "light" });
}

const STEPS = {
  waiting: async () => {
    await host("mount", html, { input: { batch: "moods" } });
    const text = await at("waiting").innerText();
    await host("cancelled", "the user pressed Stop");
    await until(at("note"), "cancelled");
    return { text, note: await at("note").innerText(), calls: seen.calls };
  },
  running: async () => {
    await called("check_status", { batch: "moods" });
    await until(at("state"), "Running");
    await settled();
    await picture("running");
    return { ...(await look()), calls: seen.calls.length };
  },
  refreshed: async () => {
    // The first look after 5 s finds what it found before; the pause grows by half each time.
    const looks = [await after(4.9), await after(0.2), await after(7.3), await after(0.3), await after(11)];
    await ask("finish");
    await after(0.5);
    await until(at("state"), "Partially");
    await at("panel").waitFor();
    const result = await look();
    await picture("answers");
    return { looks, calls: seen.calls, ...result, later: await after(7200) };
  },
  failures: async () => {
    seen.calls = [];
    await at("tab-answers").focus();
    await press("ArrowRight");
    await until(at("panel"), "Reasons");
    const result = await look();
    await picture("failures");
    return result;
  },
  rows: async () => {
    await press("ArrowRight");
    await until(at("panel"), "Page 1");
    const first = await look();
    await picture("rows");
    return first;
  },
  paged: async () => {
    // The next page by the keyboard alone: out of the tabs, over Previous, to Next.
    await press("Tab");
    await press("Tab");
    await press("Enter");
    await until(at("panel"), "Page 2");
    const second = await look();
    const ring = await view.locator("[data-turn=Next]").evaluate((node) => [getComputedStyle(node).outlineStyle, getComputedStyle(node).outlineWidth]);
    await press("Shift+Tab");
    await press("Enter");
    await until(at("panel"), "Page 1");
    return { second, ring, back: await look() };
  },
  widths: async () => {
    const widths = {};
    for (const width of [320, 480, 1200]) {
      await page.setViewportSize({ width, height: 1000 });
      widths[width] = (await look()).width;
    }
    await page.setViewportSize({ width: 760, height: 1000 });
    return widths;
  },
  themes: async () => {
    const ground = () => view.locator("body").evaluate((body) => getComputedStyle(body).backgroundColor);
    const colours = [await ground()];
    await host("context", { theme: "dark" });
    colours.push(await ground());
    await host("context", { styles: { variables: { "--color-background-primary": "rgb(1, 2, 3)", background: "red" } } });
    colours.push(await ground());
    return colours;
  },
  compared: async () => {
    const told = (await called("compare_results", { batch: "moods", other: "mood_before", limit: 5 })).structuredContent;
    await until(at("compared"), "Page 1");
    await picture("compared");
    const first = await look(), text = await at("compared").innerText();
    await at("compared").getByRole("button", { name: "Next" }).click();
    await until(at("compared"), "Page 2");
    const second = await look();
    await at("compared").getByRole("button", { name: "moods" }).click();
    await until(at("title"), "moods");
    await settled();
    return { told, first, second, text, opened: (await look()).title };
  },
  asked: async () => {
    await called("check_status", { batch: "moods" });
    await at("panel").waitFor();
    seen.calls = [];
    await at("retry").focus();
    await press("Enter");
    await at("consent").waitFor();
    await picture("consent");
    const result = await look();
    await at("decline").click();
    return { ...result, calls: seen.calls, declined: await look() };
  },
  retried: async () => {
    seen.calls = [];
    seen.told = [];
    await press("Enter");
    await at("consent").waitFor();
    await at("agree").click();
    await until(at("note"), "rows:");
    await settled();
    const result = await look();
    return { ...result, calls: seen.calls, told: seen.told, later: await after(6) };
  },
  tornDown: async () => {
    const answer = await host("teardown");
    return { answer, later: await after(7200) };
  },
  list: async () => {
    await called("list_jobs", { limit: 3 });
    await until(at("list"), "Page 1");
    await picture("list");
    const first = await look();
    await at("list").getByRole("button", { name: "Next" }).click();
    await until(at("list"), "Page 2");
    return { first, second: await look(), calls: seen.calls };
  },
  opened: async () => {
    await at("list").getByRole("button", { name: "Previous" }).click();
    await until(at("list"), "Page 1");
    await at("list").getByRole("button", { name: "moods" }).focus();
    await press("Enter");
    await until(at("title"), "moods");
    const result = await look();
    await at("all").click();
    await until(at("list"), "Batches");
    return { ...result, all: await look() };
  },
  page: async () => {
    const asked = await called("get_results", { batch: "moods", view: "rows", limit: 4 });
    await until(at("panel"), "Page 1");
    const first = await look();
    await at("panel").getByRole("button", { name: "Next" }).click();
    await until(at("panel"), "Page 2");
    return { keys: asked.structuredContent.rows.map((row) => row.key), first, second: await look(), calls: seen.calls };
  },
  hostile: async () => {
    await called("get_results", { batch: "hostile", view: "rows", limit: 200 });
    await until(at("panel"), "Show all");
    await settled();
    const shown = await look();
    await at("panel").getByRole("button", { name: "Show all" }).first().click();
    const whole = await view.locator("html").evaluate((root) => ({
      isWellFormed: root.innerText.isWellFormed(),
      opened: root.querySelector("#panel [aria-expanded=true]").parentElement.innerText.length,
      strange: root.querySelectorAll("img, svg, iframe, object, embed, form, base, a, link, style:not(head > style), script:not(body > script)").length,
      hacked: window.hacked === true,
      scripts: document.scripts.length,
    }));
    await at("tab-answers").click();
    await view.locator("#panel figure, #panel p").first().waitFor();
    return { ...shown, ...whole, answers: await at("panel").innerText() };
  },
  odd: async () => {
    await called("check_status", { batch: "odd" });
    await view.locator("#panel figure").first().waitFor();
    return look();
  },
  textOnly: async () => {
    await called("get_results", { batch: "moods", view: "failures", limit: 3 }, { capabilities: { message: { text: {} } } });
    await until(at("panel"), "Reasons");
    const result = await look();
    await at("retry").click();
    await until(at("note"), "asked");
    return { ...result, calls: seen.calls, told: seen.told, later: await after(7200) };
  },
  refused: async () => {
    await host("mount", html, { input: { batch: "nothing" }, result: await ask("tool", "check_status", { batch: "nothing" }) });
    await at("note").waitFor();
    return look();
  },
  broken: async () => {
    await called("check_status", { batch: "moods" });
    await until(at("state"), /\w/);
    await settled();
    seen.calls = [];
    broken = "The server is not there.";
    const looks = [];
    for (const seconds of [5, 10, 20, 40, 60, 7200]) looks.push((await after(seconds + 0.1)).length);
    await until(at("note"), "Refresh looks again");
    const stopped = await look();
    broken = "";
    await at("refresh").click();
    await settled();
    return { looks, stopped, again: await look() };
  },
  tried: async () => {
    await ask("rival");
    const told = (await called("compare_results", { batch: "moods", other: "mood_before", limit: 5 })).structuredContent;
    await until(at("compared"), "Page 1");
    await picture("tried");
    const first = await look(), text = await at("compared").innerText();
    await at("compared").getByRole("button", { name: "Next" }).click();
    await until(at("compared"), "Page 2");
    const second = await look();
    await at("compared").getByRole("button", { name: "prompt 2" }).click();
    await until(at("title"), "rival");
    await settled();
    return { told, first, second, text, opened: (await look()).title };
  },
};

for (const [name, step] of Object.entries(STEPS)) {
  try {
    seen[name] = await step();
  } catch (error) {
    const { messages, errors, calls } = seen;
    throw new Error(`step ${name}: ${error.message}\n${JSON.stringify({ messages, errors, calls, view: await at("note").evaluate(() => document.body.innerText) })}`);
  }
}
await browser.close();
process.stdout.write(`${JSON.stringify({ seen })}\n`, () => process.exit(0));
