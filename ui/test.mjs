// Runs the page's unit tests (src/**/*.test.ts) on Node: node test.mjs WORK_DIR
// WORK_DIR is the one that bundle.mjs has filled. What is not a browser's is tested here; the rest in
// tests/page, in a browser.

import { spawnSync } from 'node:child_process';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';

const work = path.resolve(process.argv[2]);
const { buildSync } = createRequire(path.join(work, 'package.json'))('esbuild');
const tests = fs.readdirSync(path.join(work, 'src'), { recursive: true }).map(String).filter((f) => f.endsWith('.test.ts'));
const out = path.join(work, 'tests');
fs.rmSync(out, { recursive: true, force: true });
buildSync({
  absWorkingDir: work, entryPoints: tests.map((f) => `src/${f}`), outdir: out, outExtension: { '.js': '.mjs' },
  bundle: true, platform: 'node', format: 'esm', preserveSymlinks: true, logLevel: 'warning', jsx: 'automatic', jsxImportSource: 'preact',
  loader: { '.css': 'text' },
});
const built = tests.map((f) => path.join(out, f.replace(/\.ts$/, '.mjs')));
process.exit(spawnSync(process.execPath, ['--test', '--test-reporter=tap', ...built], { stdio: 'inherit' }).status ?? 1);
