// Opens the plain sample in Firefox over WebDriver BiDi, connects, and takes a picture: firefox.mjs PROGRAM URL PICTURE
import puppeteer from "puppeteer-core";

const [program, url, picture] = process.argv.slice(2);
const browser = await puppeteer.launch({ browser: "firefox", executablePath: program, headless: true });
try {
  const page = await browser.newPage();
  await page.setViewport({ width: 900, height: 900 });
  page.setDefaultTimeout(60_000);
  await page.goto(url);
  await page.locator("#connect").click();
  await page.locator('>>> input[placeholder="your-company"]').fill("acme");
  await page.locator('>>> input[placeholder^="wrong"]').fill("a-good-key-4711");
  await page.locator(">>> ::-p-text(Select Field)").click();
  await page.locator(">>> ::-p-text(Europe)").click();
  for (const button of await page.$$("stackone-hub >>> button")) {
    if ((await button.evaluate((found) => found.textContent.trim())) === "Connect") await button.click();
  }
  await page.waitForFunction(() => document.querySelector("connect-list").textContent.includes("Disconnect"));
  await page.screenshot({ path: picture });
  console.log(await page.evaluate(() => document.querySelector("connect-list").textContent));
} finally {
  await browser.close();
}
