// Walks through a report in Chromium as a person would, and prints as JSON what there was to see.
// Arguments: the browser's program, the page's file, a new directory for its profile.
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";
import { chromium } from "playwright-core";

const [program, path, profile] = process.argv.slice(2);
const FLAGS = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const seen = { requests: [], served: [], messages: [], errors: [], dialogs: [], violations: [] };
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: program,
  headless: true,
  args: FLAGS,
  viewport: { width: 1280, height: 900 },
  colorScheme: "light",
});
browser.setDefaultTimeout(20_000);
await browser.exposeFunction("tellViolation", (text) => seen.violations.push(text));
await browser.addInitScript(() => {
  addEventListener("securitypolicyviolation", (event) => window.tellViolation(`${event.violatedDirective} ${event.blockedURI}`));
});
const page = await browser.newPage();
page.on("request", (request) => seen.requests.push(request.url()));
page.on("console", (message) => seen.messages.push(message.text()));
page.on("pageerror", (error) => seen.errors.push(String(error)));
page.on("dialog", (dialog) => {
  seen.dialogs.push(dialog.message());
  return dialog.dismiss();
});

/** What the list shows now, and where the keyboard is. */
function look() {
  return page.evaluate(() => {
    const texts = (selector) => [...document.querySelectorAll(selector)].map((node) => node.textContent);
    return {
      found: document.getElementById("found").textContent,
      place: document.getElementById("place").textContent,
      head: texts("#list-head th"),
      rows: [...document.querySelectorAll("#list tr")].map((row) => [...row.children].map((cell) => cell.textContent)),
      filters: texts("#filters button"),
      pressed: texts("#filters button[aria-pressed=true]"),
      sorted: [...document.querySelectorAll("#list-head th")].map((node) => node.getAttribute("aria-sort")),
      focus: document.activeElement.getAttribute("aria-label") || document.activeElement.id || document.activeElement.textContent,
      previous: document.getElementById("previous").disabled,
      next: document.getElementById("next").disabled,
    };
  });
}

async function search(words) {
  const before = await page.locator("#found").textContent();
  await page.locator("#search").fill(words);
  await page.waitForFunction((text) => document.getElementById("found").textContent !== text, before);
  return look();
}

function dialog() {
  return page.evaluate(() => {
    const row = document.getElementById("row");
    return {
      open: row.open,
      title: document.getElementById("row-title").textContent,
      cells: [...row.querySelectorAll("dl > div")].map((line) => [...line.children].map((cell) => cell.textContent)),
    };
  });
}

/** Do what closes the open row, and wait until the page has heard of it: the event comes later than the click. */
async function closing(action) {
  const before = await page.evaluate(() => window.closings);
  await action();
  await page.waitForFunction((number) => window.closings > number, before);
}

const press = (key) => page.keyboard.press(key);
const STEPS = {
  start: look,
  document: () =>
    page.evaluate(() => ({
      title: document.title,
      hacked: window.hacked === true,
      scripts: document.scripts.length,
      strange: document.querySelectorAll("img, iframe, object, embed, form, base, style:not(head > style), #list script").length,
      pictures: [...document.querySelectorAll("svg")].map((node) => node.getBoundingClientRect()).filter((box) => box.width * box.height === 0).length,
    })),
  named: () => page.getByRole("img", { name: "Rows by outcome" }).count(),
  skip: async () => {
    await press("Tab");
    const first = await look();
    await press("Enter");
    return { first: first.focus, hash: await page.evaluate(() => location.hash) };
  },
  searched: () => search("NEEDLE row"),
  nothing: () => search("there is no such thing"),
  cleared: () => search(""),
  second: async () => {
    await page.locator("#next").click();
    return look();
  },
  hundred: async () => {
    await page.locator("#size").selectOption("100");
    return look();
  },
  failed: async () => {
    await page.locator("#filters button", { hasText: "Failed" }).click();
    return look();
  },
  reason: async () => {
    await page.locator("[data-show-reason]").first().click();
    return look();
  },
  outcome: async () => {
    await page.locator("[data-show-status=truncated]").click();
    return look();
  },
  all: async () => {
    await page.locator("#filters button", { hasText: "All" }).click();
    return look();
  },
  ascending: async () => {
    await page.locator("#list-head button", { hasText: "key" }).click();
    return look();
  },
  descending: async () => {
    await press("Enter");
    return look();
  },
  unsorted: async () => {
    await press("Enter");
    return look();
  },
  byRow: async () => {
    await page.locator("#list-head button", { hasText: "Row" }).click();
    return look();
  },
  byStatus: async () => {
    await page.locator("#list-head button", { hasText: "status" }).click();
    return look();
  },
  fewer: async () => {
    await page.locator("#columns-menu summary").click();
    await page.getByLabel("error", { exact: true }).uncheck();
    await page.getByLabel("attempt", { exact: true }).check();
    await press("Escape");
    return { ...(await look()), open: await page.locator("#columns-menu").evaluate((menu) => menu.open) };
  },
  walked: async () => {
    await page.locator("#size").selectOption("25");
    await page.locator("#search").focus();
    await press("ArrowDown");
    const first = (await look()).focus;
    for (let step = 0; step < 25; step += 1) await press("ArrowDown");
    const over = await look();
    await press("ArrowUp");
    const back = await look();
    for (let step = 0; step < 25; step += 1) await press("ArrowUp");
    return { first, over, back, out: (await look()).focus };
  },
  opened: async () => {
    await press("ArrowDown");
    await press("Enter");
    return dialog();
  },
  after: async () => {
    await page.locator("#row-next").click();
    return dialog();
  },
  before: async () => {
    await page.locator("#row-previous").click();
    return dialog();
  },
  closed: async () => {
    await closing(() => press("Escape"));
    return { ...(await dialog()), focus: (await look()).focus };
  },
  leafed: async () => {
    await page.locator("#list button").last().click();
    await page.locator("#row-next").click();
    await closing(() => page.locator("#row-close").click());
    return look();
  },
  outside: async () => {
    await page.locator("#list button").first().click();
    await closing(() => page.mouse.click(5, 5));
    return dialog();
  },
  widths: async () => {
    const widths = {};
    for (const width of [320, 360, 768, 1280, 2560]) {
      await page.setViewportSize({ width, height: 800 });
      widths[width] = await page.evaluate(() => document.documentElement.scrollWidth);
    }
    await page.setViewportSize({ width: 1280, height: 900 });
    return widths;
  },
  schemes: async () => {
    const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    const light = await ground();
    await page.emulateMedia({ colorScheme: "dark" });
    const dark = await ground();
    await page.emulateMedia({ media: "print" });
    const printed = await ground();
    const controls = await page.locator("#search, #next, #filters, [data-show-reason]").filter({ visible: true }).count();
    await page.emulateMedia({ media: "screen", colorScheme: "light" });
    return { light, dark, printed, controls };
  },
};

await page.goto(pathToFileURL(path).href);
if ((await page.locator("#explorer").count()) === 1) {
  await page.evaluate(() => {
    window.closings = 0;
    // After the page's own listener.
    document.getElementById("row").addEventListener("close", () => (window.closings += 1));
  });
  for (const [name, step] of Object.entries(STEPS)) {
    try {
      seen[name] = await step();
    } catch (error) {
      throw new Error(`step ${name}: ${error.message}`);
    }
  }
}

// Once more from a server, which hears of everything that the page asks for, an icon included.
const content = await readFile(path);
const server = createServer((request, response) => {
  seen.served.push(request.url);
  response.writeHead(200, { "content-type": "text/html; charset=utf-8" }).end(content);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
await page.goto(`http://127.0.0.1:${server.address().port}/`, { waitUntil: "networkidle" });
await browser.close();
server.close();
process.stdout.write(JSON.stringify(seen));
