// Unpacks the Chromium of `@sparticuz/chromium` once, with the libraries that it needs and the machine may lack, and
// prints where it lies. Its packer chooses the folder for temporary files, so that is set first.

import { mkdirSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const folder = fileURLToPath(new URL("node_modules/.chromium", import.meta.url));
mkdirSync(folder, { recursive: true });
process.env.TMPDIR = folder;

const { inflate } = await import("@sparticuz/chromium");
const archive = (name) => fileURLToPath(new URL(`node_modules/@sparticuz/chromium/bin/${name}`, import.meta.url));
const [program, , fonts, libraries] = await Promise.all(
  ["chromium.br", "swiftshader.tar.br", "fonts.tar.br", "al2023.tar.br"].map((name) => inflate(archive(name))),
);
// The one in the archive looks for its fonts where Lambda has them.
const config = `${folder}/fonts.conf`;
writeFileSync(config, `<fontconfig><dir>${fonts}/fonts</dir><cachedir>${folder}/font-cache</cachedir></fontconfig>\n`);
console.log(JSON.stringify({ program, fonts: config, libraries: `${libraries}/lib` }));
