// Builds the page into one C file: a table of gzip'ed files that src/web/page_files.h declares.
//
//   node bundle.mjs SOURCE_DIR WORK_DIR OUT_C DEPFILE
//
// SOURCE_DIR is never written to. WORK_DIR gets the npm packages (again only when the lock file has
// changed) and a link to the sources, so that they find each other by the ordinary rules.
// File names carry a hash of their content, so a browser may keep them for ever; index.html does not.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { gzipSync } from 'node:zlib';

const [source, work, outC, depfile] = process.argv.slice(2).map((p) => path.resolve(p));

function die(text) {
  console.error(`page: ${text}`);
  process.exit(1);
}

function installPackages() {
  const lock = fs.readFileSync(path.join(source, 'package-lock.json'));
  const stamp = path.join(work, 'node_modules/.pugmark-lock');
  const digest = createHash('sha256').update(lock).update(process.version).digest('hex');
  if (fs.existsSync(stamp) && fs.readFileSync(stamp, 'utf8') === digest) return;
  for (const name of ['package.json', 'package-lock.json'])
    fs.copyFileSync(path.join(source, name), path.join(work, name));
  try {
    execFileSync('npm', ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error'],
      { cwd: work, stdio: ['ignore', 'pipe', 'inherit'] });
  } catch {
    die('npm could not install the packages of the page (is the npm registry reachable?);\n' +
        '      configure with -Dpage=disabled to build pugmark without its page');
  }
  fs.writeFileSync(stamp, digest);
}

function linkSources() {
  const link = path.join(work, 'src');
  const target = path.join(source, 'src');
  try {
    if (fs.readlinkSync(link) === target) return;
  } catch {
    /* not there yet */
  }
  fs.rmSync(link, { force: true, recursive: true });
  fs.symlinkSync(target, link);
}

fs.mkdirSync(work, { recursive: true });
installPackages();
linkSources();
fs.copyFileSync(path.join(source, 'tsconfig.json'), path.join(work, 'tsconfig.json'));

const require = createRequire(path.join(work, 'package.json'));
const esbuild = require('esbuild');
const result = await esbuild.build({
  absWorkingDir: work,
  entryPoints: { app: 'src/main.tsx', style: 'src/style/main.css', pugmark: 'src/pugmark.svg' },
  outdir: 'out',
  entryNames: '[name]-[hash]',
  assetNames: '[name]-[hash]',
  loader: { '.svg': 'copy', '.woff2': 'file' },
  bundle: true,
  minify: true,
  write: false,
  metafile: true,
  preserveSymlinks: true,
  format: 'esm',
  target: ['chrome123', 'firefox120', 'safari17.5'],
  jsx: 'automatic',
  jsxImportSource: 'preact',
  legalComments: 'none',
  logLevel: 'warning',
}).catch(() => process.exit(1)); // esbuild has said what is wrong

const types = {
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.woff2': 'font/woff2',
  '.html': 'text/html; charset=utf-8',
  '.txt': 'text/plain; charset=utf-8',
};

// The notices that the licences of what is bundled ask for.
function notices() {
  const packages = new Set();
  for (const input of Object.keys(result.metafile.inputs)) {
    const m = /(?:^|\/)node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(input);
    if (m) packages.add(m[1]);
  }
  let text = 'The page of Pugmark is under the Apache License 2.0. It contains:\n';
  for (const name of [...packages].sort()) {
    const dir = path.join(work, 'node_modules', name);
    const { version, license } = JSON.parse(fs.readFileSync(path.join(dir, 'package.json'), 'utf8'));
    const file = fs.readdirSync(dir).find((f) => /^licen[cs]e/i.test(f));
    if (!file) die(`${name} has no licence file`);
    text += `\n==== ${name} ${version} (${license})\n\n${fs.readFileSync(path.join(dir, file), 'utf8').trim()}\n`;
  }
  return text;
}

const files = [];
const named = {};
for (const { path: at, contents } of result.outputFiles) {
  const name = path.basename(at);
  const entry = /^(app|style|pugmark|inter)-/.exec(name);
  if (entry) named[entry[1] + path.extname(name)] = `/assets/${name}`;
  files.push({ path: `/assets/${name}`, bytes: Buffer.from(contents), immutable: true });
}
const html = fs.readFileSync(path.join(source, 'src/index.html'), 'utf8').replace(
  /\{\{(.*?)\}\}/g,
  (_, name) => named[name] ?? die(`index.html names ${name}, which was not built`),
);
files.push({ path: '/index.html', bytes: Buffer.from(html), immutable: false });
files.push({ path: '/licenses.txt', bytes: Buffer.from(notices()), immutable: false });
files.sort((a, b) => (a.path < b.path ? -1 : 1));

let c = '/* Built by ui/bundle.mjs. */\n#include "web/page_files.h"\n\n';
files.forEach((file, i) => {
  const gzip = gzipSync(file.bytes, { level: 9 });
  gzip[9] = 255; // the operating system: the same bytes on every machine
  file.gzipBytes = gzip.length;
  file.etag = createHash('sha256').update(file.bytes).digest('hex').slice(0, 20);
  c += `static const unsigned char file_${i}[] = {\n`;
  for (let at = 0; at < gzip.length; at += 24) c += gzip.subarray(at, at + 24).join(',') + ',\n';
  c += '};\n\n';
});
c += 'const struct page_file page_files[] = {\n';
files.forEach((file, i) => {
  const type = types[path.extname(file.path)] ?? die(`no content type for ${file.path}`);
  c += `    {"${file.path}", "${type}", "\\"${file.etag}\\"", file_${i}, ${file.gzipBytes}, ${file.bytes.length}, ${file.immutable}},\n`;
});
c += '};\n';
c += `const size_t page_files_n = ${files.length};\n`;
fs.writeFileSync(outC, c);

const inputs = Object.keys(result.metafile.inputs)
  .filter((f) => f.startsWith('src/'))
  .map((f) => path.join(source, f));
for (const f of ['src/index.html', 'tsconfig.json', 'package.json', 'package-lock.json', 'bundle.mjs']) inputs.push(path.join(source, f));
const quote = (p) => p.replace(/[ #]/g, '\\$&');
fs.writeFileSync(depfile, `${quote(path.relative(process.cwd(), outC))}: ${inputs.map(quote).join(' ')}\n`);
