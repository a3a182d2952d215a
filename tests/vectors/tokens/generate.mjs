// Writes corpus.json, providers.json and kept_signatures.json: `npm ci && node generate.mjs`. Each row is checked with jose.
import fs from 'node:fs';

import * as jose from 'jose';

import { rows as corpus, sets } from './corpus.mjs';
import { rows as providers } from './providers.mjs';
import { audience, here, issuer, now, saveKept } from './signing.mjs';

// What jose can do with webcrypto of node 20.
const known = new Set(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA', 'Ed25519']);

/** Whether some key of the set verifies the signature, by jose: undefined where it cannot say. */
async function verifies(row, set) {
  let header;
  try { header = jose.decodeProtectedHeader(row.token); } catch { return undefined; }
  const x5t = header['x5t#S256'] ?? header.x5t;
  for (const key of set.keys) {
    if (header.kid ? key.kid !== header.kid : x5t && ![key.x5t, key['x5t#S256'], key.kid].includes(x5t)) continue;
    if (key.crv === 'Ed448' || !known.has(header.alg)) return undefined;
    try {
      await jose.compactVerify(row.token, await jose.importJWK({ ...key, alg: header.alg }, header.alg));
      return true;
    } catch { /* the next */ }
  }
  return false;
}

let checked = 0;
for (const row of [...corpus.list, ...providers.list]) {
  const codes = [row.expected].flat();
  if (row.several) continue;
  const good = await verifies(row, row.jwks ?? sets[row.set ?? 'all']);
  if (good === undefined) continue;
  if (codes[0] === 'good' && !good) throw new Error(`jose finds no key for: ${row.name}`);
  if (codes[0] === 'bad_signature' && good) throw new Error(`jose finds the signature good: ${row.name}`);
  if (codes[0] !== 'good') continue;
  const claims = JSON.parse(Buffer.from(row.token.split('.')[1], 'base64url'));
  const rules = { issuer, audience: [audience], leeway: 60, ...row.rules };
  const aud = claims.aud ?? claims[rules.audience_claim];
  jose.decodeJwt(row.token);
  const fits = (!rules.issuer || claims.iss === rules.issuer) && claims.exp + rules.leeway > (row.now ?? now)
    && (rules.any_audience || rules.audience_claim?.startsWith('/') || [aud].flat().some((each) => rules.audience.includes(each)));
  if (!fits) throw new Error(`the claims do not fit the rules of: ${row.name}`);
  ++checked;
}

const text = (value) => JSON.stringify(value, null, 1) + '\n';
fs.writeFileSync(here('corpus.json'), text({ now, issuer, audience, sets, rows: corpus.list }));
fs.writeFileSync(here('providers.json'), text({ now, issuer, audience, rows: providers.list }));
saveKept();
const count = (rows) => `${rows.list.length} rows (${rows.list.filter((row) => row.expected === 'good').length} good)`;
console.log(`corpus: ${count(corpus)}; providers: ${count(providers)}; ${checked} good ones confirmed by jose`);
