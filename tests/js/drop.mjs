// Uses the drop page in Chromium with the keyboard alone, and prints as JSON what there was to see.
// Arguments: the browser's program, a new directory for its profile, the page's address, a file to hand over, and a
// directory for pictures or nothing.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { chromium } from "playwright-core";

const [program, profile, address, file, pictures] = process.argv.slice(2);
const FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

const seen = { messages: [], violations: [], requests: [], widths: {} };
const browser = await chromium.launchPersistentContext(profile, {
  executablePath: program,
  headless: true,
  args: FLAGS,
  viewport: { width: 800, height: 900 },
  colorScheme: "light",
  acceptDownloads: true,
});
browser.setDefaultTimeout(20_000);
await browser.exposeFunction("tellViolation", (text) => seen.violations.push(text));
await browser.addInitScript(() => {
  addEventListener("securitypolicyviolation", (event) => window.tellViolation(`${event.violatedDirective} ${event.blockedURI}`));
});
const page = await browser.newPage();
page.on("console", (message) => seen.messages.push(message.text()));
page.on("request", (request) => seen.requests.push(`${request.method()} ${new URL(request.url()).origin}`));
// The browser is told only now that choosers are wanted here: one that opens sooner is lost.
page.on("filechooser", () => {});

/** What stands on the page for who cannot see it, and where the keyboard is. */
async function look(name) {
  seen[name] = {
    title: await page.title(),
    tree: await page.locator("body").ariaSnapshot(),
    focus: await page.evaluate(() => document.activeElement.id || document.activeElement.textContent),
  };
  for (const scheme of pictures ? ["light", "dark"] : []) {
    await page.emulateMedia({ colorScheme: scheme });
    await page.screenshot({ path: join(pictures, `drop-${name}-${scheme}.png`), fullPage: true });
  }
}

await page.goto(address);
await look("offered");
for (const width of [320, 800]) {
  await page.setViewportSize({ width, height: 900 });
  seen.widths[width] = await page.evaluate(() => document.documentElement.scrollWidth);
}

// The field has the focus; Enter opens the chooser of the system.
const [chooser] = await Promise.all([page.waitForEvent("filechooser"), page.keyboard.press("Enter")]);
seen.several = chooser.isMultiple();
await chooser.setFiles(file);

// The button, then the link to a saved file.
await page.keyboard.press("Tab");
await page.keyboard.press("Tab");
const [download] = await Promise.all([page.waitForEvent("download"), page.keyboard.press("Enter")]);
seen.download = { name: download.suggestedFilename(), text: await readFile(await download.path(), "utf-8") };

// Back to the button.
await page.keyboard.press("Shift+Tab");
await Promise.all([page.waitForEvent("load"), page.keyboard.press("Enter")]);
await look("handed");
await browser.close();
process.stdout.write(JSON.stringify(seen));
