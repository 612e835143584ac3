// Answers compared with a file under tests/golden/api; UPDATE=1 rewrites it.

import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

/** Asks each of `questions` ({name: url}) at `base`, and compares status, type and body. `steady` may take out of a body
 * what depends on the clock. */
export async function checkGolden(name, base, questions, steady = (body) => body) {
  const file = fileURLToPath(new URL(`../golden/api/${name}.json`, import.meta.url));
  const answers = {};
  for (const [what, url] of Object.entries(questions)) {
    const response = await fetch(base + url);
    const type = response.headers.get('content-type');
    const body = type === 'application/json' ? steady(await response.json()) : await response.text();
    answers[what] = { url, status: response.status, type, body };
  }
  if (process.env.UPDATE) await writeFile(file, `${JSON.stringify(answers, null, 1)}\n`);
  const golden = JSON.parse(await readFile(file, 'utf8'));
  for (const [what, answer] of Object.entries(answers)) assert.deepEqual(answer, golden[what], what);
  assert.deepEqual(Object.keys(golden), Object.keys(answers));
}
