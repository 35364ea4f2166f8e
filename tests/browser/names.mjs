// Goes through a dashboard whose pools, functions, keys and arguments are named so that they would run, or break out of their
// place, if they were not escaped. Started by the test `hostile_names_are_text_in_a_browser` of tests/web_service.rs.
//
//   node tests/browser/names.mjs DASHBOARD PICTURES
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { assertIsText, watched } from "./watched.mjs";

const [dashboard, pictures] = process.argv.slice(2);
assert(dashboard && pictures, "usage: names.mjs DASHBOARD PICTURES");
const { origin } = new URL(dashboard);
mkdirSync(pictures, { recursive: true });
const api = async (path) => (await fetch(`${dashboard}/api/${path}`)).json();

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium" });
const wrong = [];
const page = await watched(browser, origin, wrong);
page.context().setDefaultTimeout(15_000);
const picture = (name) => page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
let pages = 0;
const go = async (path) => {
  await page.goto(`${dashboard}/${path}`, { waitUntil: "domcontentloaded" });
  for (const summary of await page.locator("main summary").all()) await summary.click();
  await assertIsText(page, path);
  pages += 1;
};

/** A key as tables have it. */
const shortKey = (key) => (key.length <= 40 ? key : `${key.slice(0, 20)}…${key.slice(-20)}`);

const names = (await api("overview")).pools.map((pool) => pool.name);
assert(names.length >= 10, `${names}`);
for (const path of ["", "config"]) {
  await go(path);
  assert.deepEqual(await page.locator(".pools th.name").allTextContents(), names);
  await picture(`names-${path || "overview"}`);
}
for (const [place, name] of names.entries()) {
  // The links of the overview lead to the jobs of the pool.
  await go("");
  const card = page.locator(".pools tbody tr").nth(place);
  await card.locator("a[href*='state=pending']").click();
  await page.waitForURL(/state=pending/);
  assert.equal(await page.getByLabel("Pool").inputValue(), name);
  assert.deepEqual(await page.locator("td[data-label=Pool]").allTextContents(), [name]);
  assert.deepEqual(await page.locator("td[data-label=Function]").allTextContents(), [name]);
  assert.deepEqual(await page.locator("td[data-label=Key]").allTextContents(), [shortKey(name)]);
  // What it says about all of them is about those of the pool.
  await page.getByRole("link", { name: "Cancel all…" }).click();
  await page.waitForURL(/works\/cancel/);
  await assertIsText(page, name);
  assert.deepEqual(await page.locator("main dd").allTextContents(), [name, "any", "1"]);
  const seen = [];
  for (const state of ["pending", "running", "finished"]) {
    const filter = `pool=${encodeURIComponent(name)}&function=${encodeURIComponent(name)}`;
    const { works } = await api(`works?state=${state}&${filter}`);
    await go(`works?state=${state}&${filter}`);
    if (place === 0) await picture(`names-${state}`);
    for (const { id } of works) {
      await go(`works/${id}`);
      const values = await page.locator("#live dd").allTextContents();
      assert(values.includes(name), `${values}`);
      seen.push(...await page.locator("#live pre").allTextContents(), ...await page.locator("#live .soft").allTextContents());
      if (place === 0) await picture(`names-work-${state}`);
    }
  }
  // The page of the pool leads to its keys, and those to their jobs.
  await go(`pools/${encodeURIComponent(name)}`);
  await page.getByRole("link", { name: "The busiest" }).click();
  await page.waitForURL(/\/keys$/);
  await assertIsText(page, name);
  if (place === 0) await picture("names-keys");
  await page.locator("tbody th a").click();
  await page.waitForURL(/key=/);
  await assertIsText(page, name);
  assert.equal(await page.getByLabel("Key").inputValue(), name);
  assert.deepEqual(await page.locator("td.of-key code").evaluateAll((codes) => codes.map((code) => code.title)), [name]);
  // As an argument's name and value, as a result, as an error and as a note.
  const json = JSON.stringify({ [name]: name }, null, 2);
  assert(seen.filter((text) => text === json).length >= 2, `${seen}`);
  assert(seen.includes(name), `${seen}`);
  // The controls find the pool. Only its own are open, since those of others would lie over them.
  await page.goto(`${dashboard}/`, { waitUntil: "domcontentloaded" });
  await card.locator("summary").click();
  await card.getByLabel("Parallelism").fill(String(place + 2));
  await card.getByRole("button", { name: "Set for" }).click();
  await card.getByText(`of ${place + 2}`).waitFor();
}
await browser.close();
assert.deepEqual(wrong, []);
console.log(`${names.length} names on ${pages} pages are text`);
