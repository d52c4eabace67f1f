// Checks TypeScript and makes JavaScript of it, with the compiler's own library and nothing else of the disk.
//
//   node check.cjs LIBRARY main.ts    once: writes main.js, or prints the first errors, one JSON object a line
//   node check.cjs LIBRARY            as a service: frames in, frames out, as soda_jobs/sandbox/service.py says
'use strict';
const fs = require('fs');
const path = require('path');

const [, , library, only] = process.argv;
const ts = require(library);
const MAX_ERRORS = 3;
const MODULES = path.resolve(library, '../../..');
const SHOWN = ['typescript/lib', '@types/node', 'undici-types'].map((name) => path.join(MODULES, name));
const HERE = '/program';
const OPTIONS = {
  target: ts.ScriptTarget.ES2022,
  lib: ['lib.es2023.d.ts'],
  module: ts.ModuleKind.Node16,
  moduleDetection: ts.ModuleDetectionKind.Force,
  types: ['node'],
  typeRoots: [path.join(MODULES, '@types')],
  strict: false,
  skipLibCheck: true,
};

// What never changes is parsed once. A file is the compiler's own or the program's: nothing else exists.
const parsed = new Map();
const isShown = (name) => SHOWN.some((folder) => name === folder || name.startsWith(folder + '/'));

function hostFor(name, text, written) {
  const main = `${HERE}/${name}`;
  const read = (file) => (file === main ? text : isShown(file) ? ts.sys.readFile(file) : undefined);
  return {
    getSourceFile(file, options) {
      if (file === main) return ts.createSourceFile(file, text, options, true);
      if (!parsed.has(file)) {
        const found = read(file);
        parsed.set(file, found === undefined ? undefined : ts.createSourceFile(file, found, options, true));
      }
      return parsed.get(file);
    },
    getDefaultLibLocation: () => path.dirname(library),
    getDefaultLibFileName: (options) => path.join(path.dirname(library), ts.getDefaultLibFileName(options)),
    getCurrentDirectory: () => HERE,
    getCanonicalFileName: (file) => file,
    useCaseSensitiveFileNames: () => true,
    getNewLine: () => '\n',
    fileExists: (file) => file === main || (isShown(file) && ts.sys.fileExists(file)),
    directoryExists: (folder) => folder === HERE || SHOWN.some((shown) => shown.startsWith(folder + '/')) ||
      (isShown(folder) && ts.sys.directoryExists(folder)),
    getDirectories: () => [],
    readFile: read,
    writeFile: (file, made) => written.set(path.basename(file), made),
  };
}

// The JavaScript files by name, or the first errors as text.
function check(name, text) {
  const written = new Map();
  const program = ts.createProgram([`${HERE}/${name}`], OPTIONS, hostFor(name, text, written));
  const file = program.getSourceFile(`${HERE}/${name}`);
  const found = [
    ...program.getOptionsDiagnostics(), ...program.getSyntacticDiagnostics(file),
  ];
  const errors = found.length > 0 ? found : program.getSemanticDiagnostics(file);
  if (errors.length === 0) program.emit(file);
  if (errors.length === 0 && written.size > 0) return { written, text: '' };
  return { written: new Map(), text: errors.slice(0, MAX_ERRORS).map(line).join('') };
}

function line(error) {
  const place = error.file ? error.file.getLineAndCharacterOfPosition(error.start) : undefined;
  const message = ts.flattenDiagnosticMessageText(error.messageText, ' ');
  const at = error.file ? path.basename(error.file.fileName) : '';
  return JSON.stringify({ file: at, line: place ? place.line + 1 : 0, code: error.code, message }) + '\n';
}

// -- as a service

function receive(size) {
  const found = Buffer.alloc(size);
  for (let at = 0; at < size; ) {
    const count = fs.readSync(0, found, at, size - at, null);
    if (count === 0) process.exit(0);
    at += count;
  }
  return found;
}

function send(pairs) {
  const parts = pairs.flat().map((part) => Buffer.from(part));
  const framed = parts.flatMap((part) => [length(part.length), part]);
  const body = Buffer.concat(framed);
  const reply = Buffer.concat([length(body.length), body]);
  for (let at = 0; at < reply.length; ) at += fs.writeSync(1, reply, at);
}

function length(number) {
  const made = Buffer.alloc(4);
  made.writeUInt32BE(number);
  return made;
}

function serve() {
  for (;;) {
    const body = receive(receive(4).readUInt32BE(0));
    const nameSize = body.readUInt32BE(0);
    const name = body.toString('utf8', 4, 4 + nameSize);
    const { written, text } = check(name, body.toString('utf8', 8 + nameSize));
    send(written.size > 0 ? [...written] : [['', text]]);
  }
}

if (only === undefined) {
  serve();
} else {
  const { written, text } = check(only, fs.readFileSync(only, 'utf8'));
  for (const [name, made] of written) fs.writeFileSync(name, made);
  process.stderr.write(text);
  process.exitCode = written.size > 0 ? 0 : 1;
}
