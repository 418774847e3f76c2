// Looks at the page as a person does, in a real Chromium, and fails on the first thing that is not so.
//
//   node page.mjs URL OUTPUT_DIR VERDICT [--culprit FUNCTION] [--name PREFIX] [--token TOKEN] [--later VERDICT] [--flame]
//
// VERDICT is a part of the sentence that must be visible. With --culprit the table must name it, and its stack must open by
// keyboard. With --later the verdict must come to say that without a reload. With --flame the flame graph of the newest heap
// against the baseline must be drawn, and be usable by mouse and by keyboard. Screenshots: light, dark and 360 px wide, as
// OUTPUT_DIR/PREFIX-*.png; of the graph light and dark, 1280 and 400 px wide.

import { mkdir, readFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const { values: options, positionals: [url, output, verdict] } = parseArgs({
  allowPositionals: true,
  options: { culprit: { type: "string" }, name: { type: "string", default: "page" }, token: { type: "string" }, later: { type: "string" }, flame: { type: "boolean" } },
});
if (!url || !output || !verdict) throw new Error("usage: page.mjs URL OUTPUT_DIR VERDICT [--culprit FUNCTION] [--name PREFIX] [--token TOKEN] [--later VERDICT]");

const FLAGS = [
  "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync",
];
const DEADLINE = 20_000;
const faults = [];

function check(good, words) {
  console.log(`${good ? "ok" : "NOT OK"}: ${words}`);
  if (!good) faults.push(words);
}

/** Opens the page in a fresh context and collects whatever the browser complains about. */
async function open(browser, { scheme, width = 1180, height = 900 }) {
  const context = await browser.newContext({ colorScheme: scheme, viewport: { width, height }, deviceScaleFactor: 2, acceptDownloads: true });
  const page = await context.newPage();
  const [complaints, lists] = [[], []];
  const known = (text) => options.token && text.includes("401"); // The page learns that it needs a token by asking.
  page.on("console", (message) => message.type() === "error" && !known(message.text()) && complaints.push(message.text()));
  page.on("response", (response) => response.url().endsWith("/api/incidents") && lists.push(response.status()));
  page.on("pageerror", (error) => complaints.push(String(error)));
  page.on("request", (request) => new URL(request.url()).origin === new URL(url).origin || request.url().startsWith("blob:") || complaints.push(`asked ${request.url()}`));
  await page.addInitScript(() => {
    window.violations = [];
    document.addEventListener("securitypolicyviolation", (event) => window.violations.push(`${event.violatedDirective} ${event.blockedURI}`));
  });
  await page.goto(url);
  if (options.token) {
    await page.locator("#token-field").fill(options.token, { timeout: DEADLINE });
    await page.keyboard.press("Enter");
  }
  await page.locator("body.ready").waitFor({ timeout: DEADLINE });
  await page.locator("#live[data-state=live]").waitFor({ timeout: DEADLINE });
  return { context, page, complaints, lists };
}

/** What holds in every look: no complaint, no violation, no sideways scrolling. */
async function checkCalm(name, page, complaints) {
  check(complaints.length === 0, `${name}: no console error ${complaints.join("; ")}`);
  const violations = await page.evaluate(() => window.violations);
  check(violations.length === 0, `${name}: no violation of the policy ${violations.join("; ")}`);
  const wider = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  check(wider <= 0, `${name}: nothing is wider than the window (${wider} px)`);
}

async function checkWords(page) {
  const sentence = page.locator("#verdict .sentence");
  await sentence.getByText(verdict).first().waitFor({ timeout: DEADLINE }).catch(() => undefined);
  check((await sentence.innerText()).includes(verdict), `the verdict says "${verdict}"`);
  check((await page.locator("[aria-live=polite]").allInnerTexts()).some((text) => text.includes(verdict)), "the verdict is announced");
  check(!(await page.title()).includes("run"), "no name was run as a script");
  check(await page.locator("main img, main script").count() === 0, "no name became markup");
  check(await page.locator("#memory canvas").count() === 1, "the chart is drawn");
}

async function checkCulprit(page, culprit) {
  const row = page.locator("#culprits tbody tr").first();
  check((await row.locator("th").innerText()).includes(culprit), `the table's first row names ${culprit}`);
  check(/\.go:\d+/.test(await row.innerText()), "the row has file and line");
  const open = row.locator("button");
  await open.focus();
  await page.keyboard.press("Enter");
  check(await page.locator("#stack-0").isVisible(), "Enter opens the stack");
  check(await open.getAttribute("aria-expanded") === "true", "the button says that it is open");
  await page.keyboard.press("Enter");
  check(!(await page.locator("#stack-0").isVisible()), "Enter closes it again");
}

async function checkDownload(page) {
  const link = page.locator("#profiles a.download").first();
  const [download] = await Promise.all([page.waitForEvent("download", { timeout: DEADLINE }), link.click()]);
  check(/^oomwatch-[0-9a-f]{16}\.pb\.gz$/.test(download.suggestedFilename()), `the download is called ${download.suggestedFilename()}`);
  const bytes = await readFile(await download.path());
  check(bytes[0] === 0x1f && bytes[1] === 0x8b, "the download is gzip, as pulled");
  const command = await page.locator("#profiles .command code").first().innerText();
  check(command.startsWith("go tool pprof -http=: oomwatch-"), `the command is ready: ${command}`);
}

/** The first wish is granted, the second meets the cool-down; either way the page says what became of it. */
async function checkPull(page) {
  const button = page.locator("#pull-now");
  for (const words of ["Pulling", "profile.cooldown has not passed"]) {
    await button.click();
    const told = page.locator("#profiles [role=status]").filter({ hasText: words });
    check(await told.waitFor({ timeout: DEADLINE }).then(() => true, () => false), `Pull now says "${words}"`);
  }
  check(await button.isEnabled(), "it can be asked again");
}

/** Tab from the top must come by everything that can be used, each time with a visible outline. */
async function checkKeyboard(page) {
  const all = await page.evaluate(() => [...document.querySelectorAll("a[href], button, select, [tabindex='0']")]
    .filter((element) => element.checkVisibility({ visibilityProperty: true })).length);
  await page.evaluate(() => document.activeElement?.blur());
  const seen = await page.evaluateHandle(() => new Set());
  let bare = 0;
  for (let step = 0; step < all + 5; step += 1) {
    await page.keyboard.press("Tab");
    bare += await page.evaluate((seen) => {
      const element = document.activeElement;
      if (!element || element === document.body || seen.has(element)) return 0;
      seen.add(element);
      return getComputedStyle(element).outlineStyle === "none" ? 1 : 0;
    }, seen);
  }
  const reached = await page.evaluate((seen) => seen.size, seen);
  check(reached >= all, `Tab reaches ${reached} of ${all} controls`);
  check(bare === 0, "each shows its focus");
}

async function checkDeepLink(page) {
  const links = page.locator("#incidents a");
  const last = links.nth((await links.count()) - 1);
  const words = await last.locator(".what").innerText();
  await last.click();
  await page.waitForFunction((words) => document.querySelector("#verdict .sentence")?.textContent.includes(words.slice(0, 30)), words, { timeout: DEADLINE });
  check(/#\/incident\/[0-9a-z]+$/.test(page.url()), "an incident has its own address");
  await page.goBack();
}

/** The sidecar changes its mind; the page must follow without being loaded again. */
async function checkLive({ page, lists }, later) {
  // It asks for the list when it opens and once more when its stream is open: from then on only events tell.
  while (lists.length < 2) await page.waitForEvent("response", { timeout: DEADLINE });
  check(!(await page.locator("#verdict .sentence").innerText()).includes(later), `the verdict does not say "${later}" yet`);
  await page.request.get(new URL("/api/profiles/00000000000000aa", url).href); // The test's sign to go on.
  const told = page.locator("#verdict .sentence").getByText(later).first();
  check(await told.waitFor({ timeout: DEADLINE }).then(() => true, () => false), `the verdict turns to "${later}" by itself`);
}

const cells = (page) => page.locator("#flame .flame-cell");
const cell = (page, name) => page.locator(name === "all" ? "#flame [data-cell='0']" : `#flame [aria-label*="${name}: "]`).first();
const widthOf = async (locator) => (await locator.boundingBox())?.width ?? 0;
const until = async (condition) => {
  const end = Date.now() + DEADLINE;
  while (Date.now() < end) {
    if (await condition()) return true;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return false;
};
const held = (locator, condition) => until(async () => condition(await widthOf(locator)));

/** Nothing is read before somebody asks; then the newest heap is drawn against the baseline. */
async function openFlame(page) {
  const asked = [];
  page.on("request", (request) => request.url().includes("/flame") && asked.push(request.url()));
  check(await page.locator("#flame").isVisible() && await cells(page).count() === 0, "the flame graph is offered and not drawn");
  await page.locator("#flame button.open").focus();
  await page.keyboard.press("Enter");
  const isDrawn = await cells(page).first().waitFor({ timeout: DEADLINE }).then(() => true, () => false);
  check(isDrawn, "Enter has the flame graph drawn");
  if (!isDrawn) throw new Error(`there is no flame graph: ${await page.locator("#flame").innerText()}`);
  check(asked.length === 1 && asked[0].includes("/9c40e1b7a2d35f68/flame?base=02f8b6d4e17ca935"), `it is asked for once: ${asked}`);
}

async function checkFlame(page) {
  const graph = page.locator("#flame .flame-graph");
  const whole = await widthOf(graph);
  const leaf = cell(page, "statsd.newStatsdBuffer");
  check(await cells(page).count() > 15, `the graph has ${await cells(page).count()} cells`);
  check(Math.abs(await widthOf(cell(page, "all")) - whole) < 2, "the root is as wide as the graph");
  const share = await widthOf(leaf) / whole;
  check(share > 0.7 && share < 0.85, `the culprit is as wide as what it holds (${share.toFixed(2)})`);
  check(await leaf.getAttribute("data-heat") === "3" && await leaf.getAttribute("data-path") === "true", "the culprit is warm and its path marked");
  check(await cell(page, "main.handleJob").getAttribute("data-path") === "true", "so is who made it");
  const label = await leaf.getAttribute("aria-label");
  check(/datadog-go\/v5\/statsd\.newStatsdBuffer: 149 MiB \(\d+ % of all\) · \+149 MiB \(\d+ % of the growth\) · on the culprit's path/.test(label ?? ""), `its label says all: ${label}`);
  const cache = await cell(page, "main.warmCache").getAttribute("aria-label");
  check(cache?.includes("−9 MiB") && Number(await cell(page, "main.warmCache").getAttribute("data-heat")) < 0, `what shrank is cool and says so: ${cache}`);
  await checkFlameZoom(page, whole);
  await checkFlameKeys(page, whole);
  await checkFlameChoice(page, whole);
}

async function checkFlameZoom(page, whole) {
  const zoomed = cell(page, "main.main");
  await zoomed.click();
  check(await held(zoomed, (width) => Math.abs(width - whole) < 2), "a click makes a cell as wide as the graph");
  check(await cell(page, "main.warmCache").isVisible() && !(await cell(page, "statsd.newStatsdBuffer").isVisible()), "what is not below it is gone");
  check((await page.locator("#flame .flame-told").innerText()).includes("main.main"), "the line below tells of it");
  await page.keyboard.press("Escape");
  check(await held(zoomed, (width) => width < whole / 2), "Escape shows the whole");
}

async function checkFlameKeys(page, whole) {
  await cell(page, "all").focus();
  for (const key of ["ArrowDown", "ArrowDown", "ArrowRight", "ArrowLeft", "ArrowDown"]) await page.keyboard.press(key);
  const at = () => page.evaluate(() => document.activeElement?.getAttribute("aria-label") ?? "");
  check((await at()).startsWith("main.handleJob: "), `arrows go from call to call: ${await at()}`);
  await page.keyboard.press("Enter");
  check(await held(cell(page, "main.handleJob"), (width) => Math.abs(width - whole) < 2), "Enter zooms");
  check((await at()).startsWith("main.handleJob: "), "and the focus stays");
  await page.keyboard.press("Escape");
  check((await at()).startsWith("all: "), "Escape goes back to the root");
  check(await page.locator("#flame .flame-cell[tabindex='0']").count() === 1, "the graph is one stop of Tab");
}

async function checkFlameChoice(page, whole) {
  const select = (label) => page.locator("#flame label").filter({ hasText: label }).locator("select");
  await select("Width").selectOption("growth");
  check(await held(cell(page, "main.warmCache"), (width) => width > 0 && width < whole / 2), "by growth what shrank has its width too");
  await select("Compared").selectOption("");
  check(await until(async () => await cells(page).count() > 15 && await page.locator("#flame .flame-cell:not([data-heat='0'])").count() === 0), "without a base nothing is warm");
  await select("Profile").selectOption("1be07a55c94d20f3");
  check(await cell(page, "statsd.(*Client).watch").waitFor({ timeout: DEADLINE }).then(() => true, () => false), "goroutines are drawn");
  check((await cell(page, "all").getAttribute("aria-label"))?.includes("945"), "in numbers of them");
  await select("Profile").selectOption("9c40e1b7a2d35f68");
  await cell(page, "statsd.newStatsdBuffer").waitFor({ timeout: DEADLINE });
}

/** How the graph looks, for a person to judge; it follows the window and the scheme. */
async function pictureFlame(browser) {
  const { context, page, complaints } = await open(browser, { scheme: "light", width: 1280 });
  await openFlame(page);
  for (const [colorScheme, width] of [["light", 1280], ["dark", 1280], ["light", 400], ["dark", 400]]) {
    await page.emulateMedia({ colorScheme });
    await page.setViewportSize({ width, height: 900 });
    const fits = async () => Math.abs(await widthOf(cell(page, "all")) - await widthOf(page.locator("#flame .flame-graph"))) < 2;
    check(await until(fits), `flame ${width}: the graph fits the window`);
    await cell(page, "main.handleJob").hover();
    await page.locator("#flame").screenshot({ path: `${output}/${options.name}-flame-${colorScheme}-${width}.png` });
    await checkCalm(`flame ${colorScheme} ${width}`, page, complaints);
  }
  const selects = await page.locator("#flame select").evaluateAll((all) => all.every((one) => one.getBoundingClientRect().right <= innerWidth));
  check(selects, "the choices fit");
  await context.close();
}

await mkdir(output, { recursive: true });
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: FLAGS });
try {
  for (const look of [{ name: "light", scheme: "light" }, { name: "dark", scheme: "dark" }, { name: "360", scheme: "light", width: 360, height: 780 }]) {
    const { context, page, complaints, lists } = await open(browser, look);
    await checkWords(page);
    if (options.later && look.name === "light") await checkLive({ page, lists }, options.later);
    await page.screenshot({ path: `${output}/${options.name}-${look.name}.png`, fullPage: true });
    if (look.name === "light") {
      if (options.culprit) {
        await checkCulprit(page, options.culprit);
        await checkDownload(page);
      }
      if (options.flame) {
        await openFlame(page);
        await checkFlame(page);
      }
      await checkKeyboard(page);
      await checkDeepLink(page);
    }
    await checkCalm(look.name, page, complaints);
    // After the console was looked at: the browser itself complains there of an answer that refuses.
    if (look.name === "light" && options.culprit) await checkPull(page);
    await context.close();
  }
  if (options.flame) await pictureFlame(browser);
} finally {
  await browser.close();
}
if (faults.length > 0) {
  console.error(`${faults.length} not so:\n${faults.join("\n")}`);
  process.exitCode = 1;
}
