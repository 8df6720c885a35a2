// The console in Chromium: what a person does with it, with and without script, by keyboard, in both languages and themes; axe; pictures.
"use strict";
const assert = require("assert");
const fs = require("fs");
const path = require("path");
const { chromium } = require(path.join(process.env.NODE_MODULES, "playwright-core"));
const axe = fs.readFileSync(path.join(process.env.NODE_MODULES, "axe-core", "axe.min.js"), "utf8");

const E = process.env;
const SHOTS = E.SHOTS_DIR;
const WAIT = { timeout: 20_000 };
const problems = [];

async function open(browser, options = {}) {
  const { cookies = [], ...rest } = options;
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, baseURL: E.ENDPOINT, ...rest });
  await context.addCookies(cookies.map(([name, value]) => ({ name, value, url: `${E.ENDPOINT}/console/` })));
  const page = await context.newPage();
  page.on("console", (m) => { if (m.type() === "error" && !/40[0-9]|422/.test(m.text())) problems.push(`${page.url()}: ${m.text()}`); });
  page.on("pageerror", (e) => problems.push(`${page.url()}: ${e.message}`));
  page.setDefaultTimeout(WAIT.timeout);
  return page;
}

async function signIn(page) {
  await page.goto("/console/");
  await page.fill("#u", "admin");
  await page.fill("#p", E.PASSWORD);
  await page.keyboard.press("Enter");
  await page.waitForURL("**/console/");
}

const badge = (page, word) => page.waitForSelector(`.title .badge:has-text("${word}")`, WAIT);

async function fillTask(page) {
  await page.goto("/console/tasks/new");
  await page.selectOption("#ss", "");
  await page.click("summary >> nth=0");
  await page.fill("#sr", E.S3);
  await page.fill("#sb", "slow");
  await page.fill("#ak", E.AK);
  await page.fill("#sk", E.SK);
  await page.selectOption("#ts", "");
  await page.click("summary >> nth=1");
  await page.fill("#tr", E.S3);
  await page.fill("#tb", "to");
  await page.fill("#tak", E.AK);
  await page.fill("#tsk", E.SK);
}

// Creates a task, watches it move, stops and starts it by keyboard, changes its limit and deletes it.
async function lifeOfATask(page) {
  await fillTask(page);
  await page.click('button[value="check"]');
  await page.waitForSelector("#cli");
  assert(!(await page.content()).includes(E.SK), "the page shows a secret");
  await page.click('button[value="start"]');
  await page.waitForURL(/tasks\/\d+/);
  await badge(page, "Running");
  const settled = () => page.textContent('.kpis div:has(dt:text-is("Objects")) dd');
  const before = await settled();
  await page.waitForFunction((b) => [...document.querySelectorAll(".kpis div")].some((d) => d.textContent.startsWith("Objects") && d.querySelector("dd").textContent !== b), before, WAIT);
  // Stop by keyboard alone; the page is not loaded again.
  await page.evaluate(() => { document.body.dataset.same = "yes"; });
  await page.locator("body").press("s");
  await page.waitForSelector("#dlg-stop[open]");
  await page.keyboard.press("Escape");
  assert.equal(await page.locator("dialog[open]").count(), 0);
  await page.locator("body").press("l");
  await page.waitForSelector("#dlg-limit[open]");
  await page.fill("#w1a", "00:00");
  await page.fill("#w1b", "23:59");
  await page.fill("#w1c", "100");
  await page.keyboard.press("Enter");
  await page.waitForURL(/done=limit/);
  await page.evaluate(() => { document.body.dataset.same = "yes"; });
  await page.locator("body").press("s");
  await page.waitForSelector("#dlg-stop[open]");
  await page.click("#dlg-stop button");
  await page.waitForURL(/done=stop/);
  await page.evaluate(() => { document.body.dataset.same = "yes"; });
  await badge(page, "Paused");
  await page.waitForSelector('[href="#dlg-start"]');
  assert.equal(await page.evaluate(() => document.body.dataset.same), "yes", "the state came without loading the page");
  await page.locator("body").press("s");
  await page.waitForSelector("#dlg-start[open]");
  await page.click("#dlg-start button");
  await badge(page, "Running");
  await page.locator("body").press("s");
  await page.click("#dlg-stop button");
  await badge(page, "Paused");
  const name = await page.textContent("h1");
  await page.click('[href="#dlg-delete"]');
  await page.fill("#conf", name);
  await page.keyboard.press("Enter");
  await page.waitForURL(/did=delete/);
}

// The same by forms alone.
async function withoutScript(browser) {
  const page = await open(browser, { javaScriptEnabled: false });
  await signIn(page);
  await fillTask(page);
  await page.click('button[value="start"]');
  await page.waitForURL(/tasks\/\d+/);
  for (let i = 0; i < 50 && !(await page.textContent(".title")).includes("Running"); i++) await page.reload();
  await page.click('[href="#dlg-stop"]');
  await page.click("#dlg-stop button");
  await page.waitForURL(/done=stop/);
  for (let i = 0; i < 50 && !(await page.textContent(".title")).includes("Paused"); i++) await page.reload();
  const name = await page.textContent("h1");
  await page.click('[href="#dlg-delete"]');
  await page.fill("#conf", name);
  await page.click("#dlg-delete button");
  await page.waitForURL(/did=delete/);
  await page.context().close();
}

async function cutOver(page) {
  await page.goto("/console/redis");
  await page.click("table .name");
  await badge(page, "Following changes");
  await page.waitForSelector('text="Nothing is behind."');
  await page.click('[href="#dlg-cut"]');
  await page.check("#dlg-cut input[type=checkbox]");
  await page.fill("#cf", await page.textContent("h1"));
  await page.keyboard.press("Enter");
  await badge(page, "Cut over");
  await page.click('[href="#dlg-back"]');
  await page.click("#dlg-back button");
  await badge(page, "Rolled back");
}

// A service that does not answer any more: the page says that its numbers are old, and goes on when it answers again.
async function staleNumbers(page) {
  await page.goto("/console/");
  await page.waitForSelector("#live:not(.off)");
  process.kill(Number(E.SERVICE_PID), "SIGSTOP");
  try {
    await page.waitForSelector(".is-stale", WAIT);
    await page.waitForSelector("#stale:not([hidden])", { timeout: 25_000 });
    assert(/stopped at \d\d:\d\d:\d\d/.test(await page.textContent("#stale")), await page.textContent("#stale"));
  } finally {
    process.kill(Number(E.SERVICE_PID), "SIGCONT");
  }
  await page.waitForSelector("#stale[hidden]", { state: "attached", ...WAIT });
}

async function check(page, what) {
  const wide = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  if (wide > 0) problems.push(`${what}: ${wide} px wider than the window`);
  await page.evaluate(axe);
  const found = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
  for (const v of found.violations.filter((v) => ["serious", "critical"].includes(v.impact))) {
    problems.push(`${what}: axe ${v.id}: ${v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160)).join(" | ")}`);
  }
}

async function everyPage(browser, storage) {
  const pages = JSON.parse(E.PAGES);
  for (const theme of ["light", "dark"]) {
    for (const lang of ["en", "zh"]) {
      for (const width of [1280, 390]) {
        const cookies = [["whimbrel_theme", theme], ["whimbrel_lang", lang]];
        const page = await open(browser, { storageState: storage, viewport: { width, height: 900 }, cookies });
        for (const [name, at] of pages) {
          await page.goto(at);
          const what = `${name}.${lang}.${theme}.${width}`;
          if (name.endsWith("-dialog")) await page.waitForSelector("dialog[open]");
          await check(page, what);
          if (SHOTS) await page.screenshot({ path: path.join(SHOTS, `${what}.png`), fullPage: true });
        }
        await page.context().close();
      }
    }
  }
}

async function signInPages(browser) {
  for (const theme of ["light", "dark"]) {
    for (const lang of ["en", "zh"]) {
      for (const width of [1280, 390]) {
        const page = await open(browser, { viewport: { width, height: 900 }, cookies: [["whimbrel_theme", theme], ["whimbrel_lang", lang]] });
        await page.goto("/console/signin");
        const what = `signin.${lang}.${theme}.${width}`;
        await check(page, what);
        if (SHOTS) await page.screenshot({ path: path.join(SHOTS, `${what}.png`), fullPage: true });
        await page.context().close();
      }
    }
  }
}

(async () => {
  const browser = await chromium.launch({ executablePath: E.CHROMIUM, args: ["--no-sandbox"] });
  const page = await open(browser);
  await signIn(page);
  const storage = await page.context().storageState();
  if (!SHOTS) {
    await lifeOfATask(page);
    await withoutScript(browser);
  }
  await signInPages(browser);
  await everyPage(browser, storage);
  if (!SHOTS) {
    await cutOver(page);
    await staleNumbers(page);
  }
  await browser.close();
  assert.deepEqual(problems, []);
})().catch((e) => { console.error(e); process.exit(1); });
