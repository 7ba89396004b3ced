// Generates openapi.json and src/connect/broker-api.ts from the broker; with --check it only says whether they drifted.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";

const demo = fileURLToPath(new URL("..", import.meta.url));
const repository = fileURLToPath(new URL("../..", import.meta.url));
const check = process.argv.includes("--check") ? ["--check"] : [];
const ownPython = `${repository}.venv/bin/python`;
const python = process.env.PYTHON ?? (existsSync(ownPython) ? ownPython : "python3");

function run(command, args) {
  const { status, error } = spawnSync(command, args, {
    cwd: demo,
    stdio: "inherit",
    env: { ...process.env, PYTHONPATH: repository },
  });
  if (error) console.error(`${command}: ${error.message}`);
  if (status !== 0) process.exit(status ?? 1);
}

run(python, ["scripts/write_openapi.py", ...check]);
run(process.execPath, [
  "node_modules/openapi-typescript/bin/cli.js",
  "openapi.json",
  "--output",
  "src/connect/broker-api.ts",
  ...check,
]);
