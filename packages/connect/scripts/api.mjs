/** Compares what each entry exports with the report that was reviewed, api/*.api.md; `--write` writes the reports anew. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Extractor, ExtractorConfig, ExtractorLogLevel } from "@microsoft/api-extractor";

const here = join(dirname(fileURLToPath(import.meta.url)), "..");
const scratch = mkdtempSync(join(tmpdir(), "connect-api-"));
const quiet = { default: { logLevel: ExtractorLogLevel.None } };

try {
  for (const entry of ["index", "react", "element", "testing"]) {
    const config = ExtractorConfig.prepare({
      configObjectFullPath: undefined,
      packageJsonFullPath: join(here, "package.json"),
      configObject: {
        projectFolder: here,
        mainEntryPointFilePath: join(here, "dist", `${entry}.d.ts`),
        compiler: { tsconfigFilePath: join(here, "tsconfig.build.json") },
        apiReport: {
          enabled: true,
          reportFileName: `${entry}.api.md`,
          reportFolder: join(here, "api"),
          reportTempFolder: scratch,
          includeForgottenExports: false,
        },
        docModel: { enabled: false },
        dtsRollup: { enabled: false },
        tsdocMetadata: { enabled: false },
        messages: { compilerMessageReporting: quiet, extractorMessageReporting: quiet, tsdocMessageReporting: quiet },
      },
    });
    const done = Extractor.invoke(config, {
      localBuild: process.argv.includes("--write"),
      messageCallback: (message) => {
        message.handled = true;
      },
    });
    if (done.apiReportChanged && !process.argv.includes("--write")) {
      console.error(`${entry}: its API is not that of api/${entry}.api.md; if it is meant to change: npm run api -w packages/connect`);
      process.exitCode = 1;
    }
  }
} finally {
  rmSync(scratch, { recursive: true });
}
