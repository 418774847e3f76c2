// Looks at the page as a person does, in a real Chromium, and fails on the first thing that is not so.
//
//   node page.mjs URL OUTPUT_DIR VERDICT [--culprit FUNCTION] [--name PREFIX] [--token TOKEN] [--later VERDICT]
//
// VERDICT is a part of the sentence that must be visible. With --culprit the table must name it, and its stack must open by
// keyboard. With --later the verdict must come to say that without a reload. Screenshots: light, dark and 360 px wide, as
// OUTPUT_DIR/PREFIX-*.png.

import { mkdir, readFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { chromium } from "playwright-core";

const { values: options, positionals: [url, output, verdict] } = parseArgs({
  allowPositionals: true,
  options: { culprit: { type: "string" }, name: { type: "string", default: "page" }, token: { type: "string" }, later: { type: "string" } },
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
  const all = await page.evaluate(() => [...document.querySelectorAll("a[href], button, [tabindex='0']")]
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
      await checkKeyboard(page);
      await checkDeepLink(page);
    }
    await checkCalm(look.name, page, complaints);
    // After the console was looked at: the browser itself complains there of an answer that refuses.
    if (look.name === "light" && options.culprit) await checkPull(page);
    await context.close();
  }
} finally {
  await browser.close();
}
if (faults.length > 0) {
  console.error(`${faults.length} not so:\n${faults.join("\n")}`);
  process.exitCode = 1;
}
