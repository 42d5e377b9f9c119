// Puts the `file:` dependencies of package.json into node_modules, as `npm install --install-links` does.
import { cpSync, readFileSync } from "node:fs";

const { dependencies } = JSON.parse(readFileSync("package.json", "utf8"));
for (const [name, from] of Object.entries(dependencies)) {
  cpSync(from.replace(/^file:/, ""), `node_modules/${name}`, { recursive: true });
}
