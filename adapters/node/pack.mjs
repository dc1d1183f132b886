// Makes the platform package for a program that was built here: node pack.mjs PROGRAM [PLATFORM-ARCH]
//
// dist/PLATFORM-ARCH is ready for `npm pack` and `npm publish`.
import { chmodSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';

const [program, target = `${process.platform}-${process.arch}`] = process.argv.slice(2);
if (!program) {
  console.error('usage: node pack.mjs PROGRAM [PLATFORM-ARCH]');
  process.exit(2);
}
const { version, license } = JSON.parse(readFileSync(new URL('package.json', import.meta.url)));
const [os, cpu] = target.split('-');
const folder = join(import.meta.dirname ?? new URL('.', import.meta.url).pathname, 'dist', target);
mkdirSync(join(folder, 'bin'), { recursive: true });
const copy = join(folder, 'bin', basename(program));
copyFileSync(program, copy);
chmodSync(copy, 0o755);
const description = `The program of the package devicebound for ${target}`;
const manifest = { name: `@devicebound/${target}`, version, description, license, os: [os], cpu: [cpu], files: ['bin'] };
writeFileSync(join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
console.log(folder);
