// Drives the dashboard of the example `web` in a real browser, as somebody who operates it would.
//
//   cargo build --release --features actix-web,metrics --example web
//   npm ci --prefix tests/browser
//   node tests/browser/dashboard.mjs target/release/examples/web target/browser
//
// The second argument is where the screenshots go. CHROMIUM names another browser than the system's. Nothing sleeps:
// each wait is for something that is to happen, and all of them together have a limit.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, before, test } from "node:test";
import { chromium } from "playwright-core";
import { PAYLOADS, assertIsText, watched } from "./watched.mjs";

const LIMIT_MS = 220_000;
const STEP_MS = 15_000;
const HOUR = 3600;
const PASSWORDS = { admin: "of-the-admin", viewer: "of-the-viewer" };
const [binary, pictures] = process.argv.slice(2);
assert(binary && pictures, "usage: dashboard.mjs BINARY PICTURES");

const scratch = mkdtempSync(join(tmpdir(), "workpool-browser-"));
let server, browser, service;
/** What no page may do, with where it was. */
const wrong = [];

process.on("exit", () => {
  if (server?.exitCode === null) server.kill("SIGKILL");
  rmSync(scratch, { recursive: true, force: true });
});
setTimeout(() => {
  console.error(`not done after ${LIMIT_MS / 1000} seconds`);
  process.exit(1);
}, LIMIT_MS).unref();

before(async () => {
  mkdirSync(pictures, { recursive: true });
  server = spawn(binary, [
    "--bind", "127.0.0.1:0", "--store", join(scratch, "works.redb"), "--rest-ms", "100",
    "--admin-password", PASSWORDS.admin, "--viewer-password", PASSWORDS.viewer,
  ], { stdio: ["ignore", "pipe", "inherit"] });
  for await (const line of createInterface({ input: server.stdout })) {
    service = line.match(/^dashboard: (http:[^ ]*)\/workpool\//)?.[1];
    if (service) break;
  }
  assert(service, "the service has not started");
  browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium" });
});

after(async () => {
  await browser?.close();
  if (server?.exitCode === null) {
    const ended = once(server, "exit");
    server.kill("SIGTERM");
    const [code] = await ended;
    assert.equal(code, 0, "the service ends in order");
  }
});

// -- the service

async function upload(text, afterSecs = 0, by = undefined) {
  const of = by === undefined ? "" : `&by=${encodeURIComponent(by)}`;
  const answer = await fetch(`${service}/texts?after_secs=${afterSecs}${of}`, { method: "POST", body: text });
  assert.equal(answer.status, 202);
  return (await answer.json()).id;
}

/** The stream of a text ends when it has an outcome. */
async function finished(id) {
  const answer = await fetch(`${service}/texts/${id}/events`);
  assert.equal(answer.status, 200);
  await answer.text();
}

/** So many parts of a hundred words, for each of which the service rests a tenth of a second. */
const parts = (count) => "w ".repeat(count * 100);

// -- the browser

/** A page that somebody looks at, and whatever goes wrong in it. */
async function look(path, { user = "admin", ...options } = {}) {
  const page = await watched(browser, service, wrong, {
    httpCredentials: { username: user, password: PASSWORDS[user] },
    ...options,
  });
  page.context().setDefaultTimeout(STEP_MS);
  if (path !== undefined) await go(page, path);
  return page;
}

const go = (page, path) => page.goto(`${service}/workpool/${path}`, { waitUntil: "domcontentloaded" });
const leave = (page) => page.context().close();
const picture = (page, name) => page.screenshot({ path: join(pictures, `${name}.png`), fullPage: true });
const live = (page) => page.locator("#live");
const shows = (page, text) => live(page).getByText(text).first().waitFor();

/** The state that a work's page shows. */
const reaches = (page, state) =>
  page.waitForFunction((state) => {
    const names = [...document.querySelectorAll("#live dt")];
    const value = names.find((name) => name.textContent === "State")?.nextElementSibling;
    return value?.textContent.trim().split(" ")[0] === state;
  }, state);

/** From here on a page must not be loaded anew. */
const mark = (page) => page.evaluate(() => { window.marked = true; });
const isMarked = (page) => page.evaluate(() => window.marked === true);

const row = (page, pool) => page.locator(".pools tbody tr", { has: page.getByRole("link", { name: pool, exact: true }) });

async function press(page, within, opener, button) {
  const confirm = within.getByRole("button", { name: button });
  assert.equal(await confirm.isVisible(), false, `${button} needs to be opened first`);
  await within.getByText(opener, { exact: true }).click();
  await confirm.click();
}

/** Everything that can be seen is inside the window. */
async function assertFits(page, what) {
  const wide = await page.evaluate(() => [document.documentElement, ...document.querySelectorAll(".scroll")]
    .map(({ scrollWidth, clientWidth }) => [scrollWidth, clientWidth])
    .filter(([width, shown]) => width > shown));
  assert.deepEqual(wide, [], `${what}: wider than what is shown of it`);
}

/** Nothing in these columns is broken into lines, however long a message beside it is. */
async function assertNamesAreWhole(page, what, columns) {
  const broken = await page.evaluate((columns) => [...document.querySelectorAll("td")]
    .filter((cell) => columns.includes(cell.dataset.label))
    .filter((cell) => {
      const range = document.createRange();
      range.selectNodeContents(cell);
      const parts = [...range.getClientRects()];
      return parts.length > 0 && range.getBoundingClientRect().height > 1.5 * Math.max(...parts.map((part) => part.height));
    })
    .map((cell) => cell.textContent), columns);
  assert.deepEqual(broken, [], what);
}

/** Each text stands out from what is behind it, as WCAG AA wants it. */
async function assertReadable(page, what) {
  const faint = await page.evaluate(() => {
    const parse = (color) => color.match(/[\d.]+/g).map(Number);
    const light = (color) => {
      const [r, g, b] = parse(color).map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
      for (let at = element; at; at = at.parentElement) {
        const color = getComputedStyle(at).backgroundColor;
        if ((parse(color)[3] ?? 1) > 0) return color;
      }
      return "rgb(255, 255, 255)";
    };
    const faint = [];
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const element = texts.currentNode.parentElement;
      if (!texts.currentNode.data.trim() || !element.checkVisibility()) continue;
      const [text, ground] = [light(getComputedStyle(element).color), light(behind(element))];
      const contrast = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
      if (contrast < 4.5) faint.push(`${contrast.toFixed(2)}: ${texts.currentNode.data.trim().slice(0, 40)}`);
    }
    return faint;
  });
  assert.deepEqual(faint, [], what);
}

// -- what is to work

test("a job's page follows it without being loaded anew", async () => {
  const id = await upload(parts(30));
  const page = await look(`works/${id}`);
  await reaches(page, "running");
  await mark(page);
  await live(page).getByRole("progressbar").waitFor();
  await picture(page, "work-running");
  await reaches(page, "succeeded");
  assert(await isMarked(page), "the page was loaded anew");
  await shows(page, '"words": 3000');
  await picture(page, "work-success");
  await leave(page);
});

test("parallelism is changed, and the overview shows it live to others", async () => {
  const [page, other] = [await look(""), await look("")];
  await mark(other);
  await row(page, "texts").getByText("Change…").click();
  await row(page, "texts").getByLabel("Parallelism").fill("2");
  await row(page, "texts").getByRole("button", { name: "Set for texts" }).click();
  for (const seen of [page, other]) await row(seen, "texts").getByText("of 2").waitFor();
  assert(await isMarked(other), "the page was loaded anew");
  await picture(page, "overview");
  await leave(page);
  await leave(other);
});

test("a pool is paused, what waits says so, and it goes on when the pool is resumed", async () => {
  const page = await look("");
  await press(page, row(page, "texts"), "Change…", "Pause texts");
  await row(page, "texts").getByText("paused", { exact: true }).waitFor();
  await picture(page, "overview-paused");
  const id = await upload("a few words");
  const work = await look(`works/${id}`);
  await reaches(work, "waiting");
  await shows(work, /paused/);
  await mark(work);
  await picture(work, "work-paused");
  await press(page, row(page, "texts"), "Change…", "Resume texts");
  await reaches(work, "succeeded");
  assert(await isMarked(work), "the page was loaded anew");
  await leave(page);
  await leave(work);
});

/** What a page does that gets no events: it asks now and then, and is not loaded anew. */
async function followsWithoutEvents(page) {
  const waiting = async () => Number(await row(page, "texts").locator("a[href*='state=pending']").textContent());
  const before = await waiting();
  await mark(page);
  const later = await upload("for later", HOUR);
  const shows = (count) => page.waitForFunction((count) => {
    const link = document.querySelector("td a[href='works?pool=texts&state=pending']");
    return Number(link?.textContent) === count;
  }, count);
  await shows(before + 1);
  assert(await isMarked(page), "the overview was loaded anew");
  const id = await upload(parts(20));
  await go(page, `works/${id}`);
  await mark(page);
  await reaches(page, "succeeded");
  assert(await isMarked(page), "the page of the job was loaded anew");
  assert.equal((await fetch(`${service}/texts/${later}`, { method: "DELETE" })).status, 200);
  await finished(later);
  // The next one that counts begins with the same number.
  await go(page, "");
  await shows(before);
}

test("without events the pages ask now and then", async () => {
  const page = await look(undefined);
  let refused = 0;
  await page.route("**/api/events", (route) => {
    refused += 1;
    return route.fulfill({ status: 204 });
  });
  await go(page, "");
  await followsWithoutEvents(page);
  assert(refused >= 2, "each page has tried to listen");
  await leave(page);
});

test("when all places of those who listen are taken the pages ask now and then", async () => {
  const headers = { authorization: `Basic ${btoa(`admin:${PASSWORDS.admin}`)}` };
  const gone = new AbortController();
  const listen = () => fetch(`${service}/workpool/api/events`, { headers, signal: gone.signal });
  const held = [];
  let answer;
  while ((answer = await listen()).status === 200) held.push(answer);
  assert(held.length > 0 && held.length <= 32, `${held.length}`);
  const page = await look(undefined, { refused: [503] });
  const answered = page.waitForResponse("**/api/events");
  await go(page, "");
  assert.equal((await answered).status(), 503);
  await followsWithoutEvents(page);
  gone.abort();
  // Those who have gone leave their places to others; a page that somebody comes back to listens again.
  const until = Date.now() + STEP_MS;
  for (let status = 503; status !== 200;) {
    assert(Date.now() < until, "no place is free again");
    const listens = page.waitForResponse("**/api/events");
    await setHidden(page, true);
    await setHidden(page, false);
    status = (await listens).status();
  }
  await leave(page);
});

/** As when another tab is shown. */
const setHidden = (page, hidden) => page.evaluate((hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, value: hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}, hidden);

test("a page that nobody sees does not listen", async () => {
  const page = await look(undefined);
  const isEvents = (request) => request.url().endsWith("/api/events");
  const begun = page.waitForRequest(isEvents);
  await go(page, "");
  await begun;
  const ended = page.waitForEvent("requestfailed", isEvents);
  await setHidden(page, true);
  await ended;
  const again = page.waitForRequest(isEvents);
  await setHidden(page, false);
  await again;
  await leave(page);
});

test("a job that waits is canceled, after it was confirmed", async () => {
  const id = await upload("never counted", HOUR);
  const page = await look(`works/${id}`);
  await reaches(page, "waiting");
  await picture(page, "work-waiting");
  await press(page, live(page), "Cancel…", "Yes, cancel this job");
  await page.getByRole("status").waitFor();
  await reaches(page, "canceled");
  assert.equal(await page.getByText("Cancel…").count(), 0, "what has finished has no controls");
  await picture(page, "work-canceled");
  await leave(page);
});

test("a running job is aborted, after it was confirmed", async () => {
  const id = await upload(parts(1000));
  const page = await look(`works/${id}`);
  await reaches(page, "running");
  await press(page, live(page), "Abort…", "Yes, drop its attempt");
  await reaches(page, "canceled");
  await leave(page);
});

test("a delayed job is run now", async () => {
  const id = await upload("counted at once", HOUR);
  const page = await look(`works/${id}`);
  await live(page).getByRole("button", { name: "Run now" }).click();
  await page.getByRole("status").waitFor();
  await reaches(page, "succeeded");
  await leave(page);
});

test("a failed job is retried, as a job of its own, and all of a function are", async () => {
  const id = await upload("");
  const page = await look(`works/${id}`);
  await reaches(page, "failed");
  await page.locator(".timeline").getByText("Attempt 1 failed").waitFor();
  await shows(page, "11 bytes");
  await shows(page, '"text": ""');
  await picture(page, "work-failed");
  await live(page).getByRole("button", { name: "Retry" }).click();
  await page.getByRole("status").filter({ hasText: "enqueued once more" }).waitFor();
  assert(!page.url().includes(id), "the page is that of the new job");
  await reaches(page, "failed");
  const again = page.url();
  await go(page, `works/${id}`);
  await live(page).getByRole("button", { name: "Retry" }).click();
  await page.getByRole("status").filter({ hasText: "before" }).waitFor();
  assert.equal(page.url().split("?")[0], again.split("?")[0]);

  await go(page, "works?state=finished&outcome=failed&pool=texts");
  await page.getByRole("link", { name: "Retry all…" }).click();
  await page.getByRole("button", { name: "Yes, enqueue them once more" }).click();
  await page.getByRole("status").filter({ hasText: "1 was enqueued once more." }).waitFor();
  await picture(page, "retried-all");
  await leave(page);
});

test("jobs are gone through page by page", async () => {
  const ids = await Promise.all(Array.from({ length: 120 }, () => upload("later", HOUR)));
  const page = await look("works?state=pending&pool=texts");
  const seen = [];
  for (;;) {
    seen.push(...await live(page).locator("td.id code").evaluateAll((codes) => codes.map((code) => code.title)));
    const next = page.getByRole("link", { name: "Next page" });
    if (await next.count() === 0) break;
    if (seen.length === 50) await picture(page, "works-first-page");
    await next.click();
    await page.waitForFunction((last) => document.querySelector("#live td.id code")?.title !== last, seen.at(-50));
  }
  assert.equal(new Set(seen).size, seen.length, "no work is listed twice");
  assert.deepEqual(ids.filter((id) => !seen.includes(id)), [], "each job is listed");
  await page.getByLabel("Function").selectOption("nightly");
  await page.getByRole("button", { name: "Show" }).click();
  await live(page).getByText("Nothing here.").waitFor();
  await page.getByRole("link", { name: "Finished" }).click();
  await page.getByRole("link", { name: "Canceled" }).click();
  await page.getByRole("heading", { name: "Canceled jobs" }).waitFor();
  const states = await live(page).locator("td[data-label=State]").allTextContents();
  assert(states.length >= 2 && states.every((state) => state.includes("canceled")), `${states}`);
  await leave(page);
});

test("jobs of a key wait for each other, and are found by it", async () => {
  const ids = [];
  for (let number = 0; number < 4; number += 1) ids.push(await upload(parts(1000), 0, "anna"));
  const other = await upload("later", HOUR, "bert");
  const page = await look(`works/${ids[0]}`);
  await reaches(page, "running");
  await go(page, `works/${ids[3]}`);
  await page.getByText(/Waits for others of its key: job/).waitFor();
  await page.locator(".lead a").click();
  await page.waitForURL(`**/works/${ids[0]}`);
  await page.goBack();
  await live(page).getByRole("link", { name: "anna", exact: true }).click();
  await page.waitForURL(/key=anna/);
  const listed = () => live(page).locator("td.id code").evaluateAll((codes) => codes.map((code) => code.title));
  assert.deepEqual(await listed(), ids.slice(2));
  await picture(page, "works-of-a-key");
  await go(page, "pools/texts");
  await live(page).getByRole("link", { name: "The busiest" }).click();
  await page.getByRole("heading", { name: "Keys" }).waitFor();
  const anna = live(page).locator("tbody tr").filter({ hasText: "anna" });
  assert.deepEqual(await anna.locator("td").allTextContents(), ["2", "0", "2", "no"]);
  await mark(page);
  await picture(page, "keys");
  assert.equal((await fetch(`${service}/texts/${ids[3]}`, { method: "DELETE" })).status, 200);
  await anna.locator("td[data-label='Behind others']").getByText("1", { exact: true }).waitFor();
  assert(await isMarked(page), "the page was loaded anew");
  await go(page, "works?state=pending&pool=texts");
  await page.getByLabel("Key").fill("bert");
  await page.getByRole("button", { name: "Show" }).click();
  await page.waitForURL(/key=bert/);
  assert.deepEqual(await listed(), [other]);
  await page.getByLabel("Select all").check();
  await page.getByRole("button", { name: "Cancel selected" }).click();
  await page.getByRole("status").filter({ hasText: "1 was canceled." }).waitFor();
  assert.equal(await page.getByLabel("Key").inputValue(), "bert");
  for (const id of ids.slice(0, 3)) await fetch(`${service}/texts/${id}`, { method: "DELETE" });
  await Promise.all(ids.map(finished));
  await leave(page);
});

test("jobs are selected, and what is selected is not replaced meanwhile", async () => {
  const ids = await Promise.all(Array.from({ length: 3 }, () => upload("selected", HOUR)));
  const page = await look(undefined);
  await page.clock.install();
  await go(page, "works?state=pending&pool=texts&function=text.count_words&limit=200");
  const box = (id) => page.locator(`input[name=id][value="${id}"]`);
  await box(ids[0]).check();
  await box(ids[1]).check();
  await page.getByRole("heading", { level: 1 }).click();
  const asked = [];
  page.on("request", (request) => asked.push(request.url()));
  await page.clock.fastForward(60_000);
  await page.evaluate(() => fetch("healthz"));
  assert.deepEqual(asked, [`${service}/workpool/healthz`], "what is selected is not replaced");
  assert(await box(ids[0]).isChecked());
  await picture(page, "works-selected");
  await page.getByRole("button", { name: "Cancel selected" }).click();
  await page.getByRole("status").filter({ hasText: "2 were canceled." }).waitFor();
  await Promise.all(ids.slice(0, 2).map(finished));
  await box(ids[2]).waitFor();
  await page.getByLabel("Select all").check();
  assert(await box(ids[2]).isChecked());
  await leave(page);
});

test("charts tell what is under the pointer, and ids are copied", async () => {
  await finished(await upload("one"));
  const page = await look("pools/texts?range=24h", { permissions: ["clipboard-read", "clipboard-write"] });
  const chart = page.getByRole("region", { name: "Start lag" });
  await chart.locator(".hit").last().hover();
  await chart.locator(".readout").filter({ hasText: /UTC: p50 .*, p99 / }).waitFor();
  await picture(page, "pool-day");
  await go(page, "works?state=finished&pool=texts");
  const id = live(page).locator("td.id").first();
  await id.hover();
  await id.getByRole("button", { name: "Copy id" }).click();
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), await id.locator("code").getAttribute("title"));
  await leave(page);
});

test("without the script all of it works", async () => {
  const [waits, selected] = [await upload("no script", HOUR), await upload("no script", HOUR)];
  const page = await look("?range=24h", { javaScriptEnabled: false });
  await page.getByRole("link", { name: "10 minutes" }).click();
  await row(page, "texts").getByRole("link", { name: "texts", exact: true }).click();
  await page.getByRole("button", { name: "Pause texts" }).click();
  await page.getByRole("button", { name: "Resume texts" }).click();
  await page.getByRole("button", { name: "Pause texts" }).waitFor();
  await go(page, `works/${waits}`);
  assert.equal(await page.locator(".copy:visible").count(), 0, "nothing is there that does nothing");
  await press(page, live(page), "Cancel…", "Yes, cancel this job");
  await page.getByRole("status").waitFor();
  await go(page, "works?state=pending&pool=texts&limit=200");
  await page.locator(`input[name=id][value="${selected}"]`).check();
  await page.getByRole("button", { name: "Cancel selected" }).click();
  await page.getByRole("status").filter({ hasText: "1 was canceled." }).waitFor();
  await leave(page);
});

test("the keyboard is enough", async () => {
  const id = await upload("canceled by keys", HOUR);
  const page = await look(undefined);
  await page.clock.install();
  await go(page, "");
  /** Goes on with the key until that is focused; whatever is focused on the way must be seen to be. */
  const tabTo = async (what) => {
    for (let steps = 0; steps < 60; steps += 1) {
      await page.keyboard.press("Tab");
      const at = await page.evaluate(() => {
        const { activeElement: at } = document;
        const style = getComputedStyle(at);
        const isSeen = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
        return { name: at.getAttribute("aria-label") ?? at.textContent.trim(), isSeen, tag: at.tagName };
      });
      if (at.tag === "BODY") continue;
      assert(at.isSeen, `the focus on ${at.tag} ${at.name} cannot be seen`);
      if (at.name === what) return;
    }
    assert.fail(`${what} cannot be reached`);
  };
  await tabTo("Skip to content");
  await picture(page, "keyboard-skip");
  await page.keyboard.press("Enter");
  await page.waitForURL(/#content$/);
  await go(page, "");
  await tabTo("Id of a job");
  await page.keyboard.type(id);
  await page.keyboard.press("Enter");
  await page.waitForURL(`**/works/${id}`);
  const [asked, refreshed] = [[], page.waitForRequest(page.url())];
  await page.clock.fastForward(5000);
  await refreshed;
  await tabTo("Cancel…");
  // However long it takes to press the next key: what is focused is not replaced.
  page.on("request", (request) => asked.push(request.url()));
  await page.clock.fastForward(60_000);
  await page.evaluate(() => fetch("../healthz"));
  assert.deepEqual(asked, [`${service}/workpool/healthz`]);
  await page.keyboard.press("Enter");
  await tabTo("Yes, cancel this job");
  await picture(page, "keyboard-confirm");
  await page.keyboard.press("Enter");
  await reaches(page, "canceled");
  await leave(page);
});

test("who may only look sees no controls, and is refused if he sends them all the same", async () => {
  const id = await upload("to be looked at", HOUR);
  const page = await look("", { user: "viewer", refused: [403] });
  await row(page, "texts").waitFor();
  assert.equal(await page.locator("main form, main details, main button").count(), 0);
  await picture(page, "viewer-overview");
  await go(page, `works/${id}`);
  await reaches(page, "waiting");
  assert.equal(await page.locator("main form, main details").count(), 0);
  await picture(page, "viewer-work");
  for (const action of ["cancel", "run", "abort", "retry"]) {
    for (const path of [`../works/${id}/${action}`, `../api/works/${id}/${action}`]) {
      const status = await page.evaluate(async (path) => (await fetch(path, { method: "POST" })).status, path);
      assert.equal(status, 403, path);
    }
  }
  await leave(page);
});

test("whatever others say is shown as text", async () => {
  // It goes through so many pages so fast that those it has left still take all the places of those who listen.
  const page = await look(undefined, { refused: [400, 404, 405, 503] });
  const failed = [];
  for (const payload of PAYLOADS) {
    // A result has the words in it, an error the one that was too long, progress the last one.
    const counted = await upload(payload);
    const refused = await upload(`fine ${payload}${"x".repeat(500)}`);
    const running = await upload(`${`${payload} `.repeat(100)}${parts(1000)}`, 0, payload);
    await Promise.all([finished(counted), finished(refused)]);
    await go(page, `works/${counted}`);
    await shows(page, payload.toLowerCase().replaceAll("\"", "\\\"").replace("\u0000", "\\u0000"));
    await assertIsText(page, payload);
    await go(page, `works/${refused}`);
    await reaches(page, "failed");
    const message = await live(page).locator("pre").first().textContent();
    assert(message.includes(payload.replace("\u0000", "")), message);
    await assertIsText(page, payload);
    failed.push(refused);
    await go(page, `works/${running}`);
    await reaches(page, "running");
    await assertIsText(page, payload);
    // One that cannot be typed is shown in hexadecimal digits.
    const key = payload.includes("\u0000") ? `0x${Buffer.from(payload).toString("hex")}` : payload;
    await live(page).getByRole("link", { name: key, exact: true }).waitFor();
    await go(page, `works?state=running&key=${encodeURIComponent(key)}`);
    await assertIsText(page, payload);
    assert.equal(await page.getByLabel("Key").inputValue(), key);
    assert.deepEqual(await live(page).locator("td[data-label=Key] code").evaluateAll((codes) => codes.map((code) => code.title)), [key]);
    await go(page, "pools/texts/keys");
    await live(page).locator("tbody th code").first().waitFor();
    await assertIsText(page, payload);
    await go(page, `works/${running}`);
    await press(page, live(page), "Cancel…", "Yes, cancel this job");
    await finished(running);
  }
  await picture(page, "xss-work");
  await go(page, "works?outcome=failed");
  await live(page).locator("tbody tr").first().waitFor();
  await assertIsText(page, "the list of what has failed");
  await picture(page, "xss-list");
  for (const payload of PAYLOADS) {
    const said = encodeURIComponent(payload);
    for (const path of [
      `works/${said}`, `find?id=${said}`, `works/${failed[0]}?said=${said}`, `${said}`, `pools/${said}`,
      `works?pool=${said}&function=${said}`, `works?state=${said}`, `works?outcome=${said}`, `works?cursor=${said}`,
      `works?limit=${said}`, `works?key=${said}`, `pools/${said}/keys`, `works?${said}=1`, `?${said}`, `#${said}`,
    ]) {
      await go(page, path);
      // What is answered as JSON is shown by the browser itself, as text.
      if (await page.locator("main").count() > 0) await assertIsText(page, path);
    }
    await go(page, `works?pool=${said}`);
    assert.equal(await page.getByLabel("Pool").inputValue(), payload.replace("\u0000", "\uFFFD"));
  }
  await leave(page);
});

test("it fits on a phone, light and dark, and can be read", async () => {
  const long = await upload("x".repeat(3000));
  await finished(long);
  // Keys of all lengths, one of them in hexadecimal digits.
  const keys = [`${"k".repeat(250)}\u0000`, "anna", "a key of some words that is rather long", "x".repeat(256)];
  const keyed = [];
  for (const key of keys) keyed.push(await upload(parts(2500), 0, key));
  const [running, waiting] = [keyed[0], await upload("later", HOUR)];
  for (const colorScheme of ["light", "dark"]) {
    for (const [size, viewport] of [
      ["phone", { width: 390, height: 844 }], ["tablet", { width: 768, height: 1024 }], ["desk", { width: 1280, height: 800 }],
    ]) {
      const page = await look(undefined, { colorScheme, viewport, refused: [400] });
      for (const [name, path, content, title] of [
        ["overview", "", ".pools tbody tr", /^Overview – /],
        ["pool", "pools/texts", ".charts", /^Pool texts – /],
        ["keys", "pools/texts/keys", "tbody tr", /^Keys of pool texts – /],
        ["config", "config", ".pools tbody tr", /^Configuration – /],
        ["running", `works/${running}`, "progress", new RegExp(`^Job ${running} `)],
        ["waiting", `works/${waiting}`, ".controls", new RegExp(`^Job ${waiting} `)],
        ["failed", `works/${long}`, "pre", new RegExp(`^Job ${long} `)],
        ["list", "works?state=pending", "tbody tr", /^(Waiting|Failed) jobs – /],
        ["list-failed", "works?outcome=failed", "tbody tr", /^(Waiting|Failed) jobs – /],
        ["error", "works?state=none", "[role=alert]", /^Bad Request – /],
      ]) {
        await go(page, path);
        assert.match(await page.title(), title, "tabs can be told apart");
        await page.locator(content).first().waitFor();
        for (const summary of await page.locator("main summary").all()) await summary.click();
        const what = `${name}-${size}-${colorScheme}`;
        await picture(page, what);
        await assertFits(page, what);
        await assertReadable(page, what);
        await assertNamesAreWhole(page, what, ["Job", "Function", "Pool"]);
      }
      await leave(page);
    }
  }
  const page = await look(`works/${running}`);
  await press(page, live(page), "Cancel…", "Yes, cancel this job");
  await reaches(page, "canceled");
  await leave(page);
  for (const id of keyed.slice(1)) await fetch(`${service}/texts/${id}`, { method: "DELETE" });
});

test("no page has done what it may not", () => {
  assert.deepEqual(wrong, []);
});
