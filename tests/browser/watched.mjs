// A page that is watched for whatever it may not do, and texts that would make it do so if they were not escaped.
import assert from "node:assert/strict";

/**
 * A page in a context of its own. What goes wrong in it is added to `wrong`, with where it was; `refused` are statuses
 * that it is to be answered.
 */
export async function watched(browser, origin, wrong, { refused = [], ...options } = {}) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  const note = (what) => wrong.push(`${page.url()}: ${what}`);
  await page.exposeFunction("violated", (what) => note(`content security policy: ${what}`));
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) =>
      window.violated(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
  });
  page.on("dialog", (dialog) => {
    note(`dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  page.on("pageerror", (error) => note(error.message));
  page.on("console", (message) => {
    const isExpected = refused.some((status) => message.text().includes(`a status of ${status}`));
    if (["error", "warning"].includes(message.type()) && !isExpected) note(`${message.text()} ${message.location().url}`);
  });
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== origin) note(`asks ${request.url()}`);
  });
  return page;
}

export const PAYLOADS = [
  "<script>alert(1)</script>",
  "<img/src=x/onerror=alert(1)>",
  "\"><svg/onload=alert(1)>",
  "'\"--></style></script><script>alert(1)</script>",
  "javascript:alert(1)",
  "\"autofocus/onfocus=alert(1)//",
  "</textarea><iframe/srcdoc='<script>parent.alert(1)</script>'>",
  "</pre></td></table><a/href=javascript:alert(1)>here</a>",
  "<base/href=//example.com/>",
  "<meta/http-equiv=refresh/content='0;url=javascript:alert(1)'>",
  "<style>@import'//example.com/x.css';</style>",
  "{{constructor.constructor('alert(1)')()}}",
  "<\u0000script>alert(1)<\u202E/script>",
  "&lt;script&gt;alert(1)&lt;/script&gt;",
];

/** Nothing of what was said has become a part of the page. */
export async function assertIsText(page, what) {
  const made = await page.evaluate(() => [...document.querySelectorAll("*")]
    .filter((element) =>
      [...element.attributes].some(({ name, value }) => name.startsWith("on") || /^\s*javascript:/i.test(value) && !["value", "title"].includes(name))
      || element.matches("iframe, object, embed, base, style, meta[http-equiv], script:not([src]), [srcdoc]"))
    .map((element) => element.outerHTML.slice(0, 100)));
  assert.deepEqual(made, [], what);
}
