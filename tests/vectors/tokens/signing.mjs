// Keys, signatures and rows: what corpus.mjs and providers.mjs are written with.
import crypto from 'node:crypto';
import fs from 'node:fs';

export const now = 1790000000; // 2026-09-21T14:13:20Z
export const here = (file) => new URL(file, import.meta.url);

const secrets = JSON.parse(fs.readFileSync(here('private_keys.json'), 'utf8'));
const secret = (name) => crypto.createPrivateKey({ key: secrets[name], format: 'jwk' });
export const publicKey = (name) => crypto.createPublicKey({ key: secrets[name], format: 'jwk' });

/** The public JWK of that key, with more members. */
export const jwk = (name, more = {}) => ({ ...publicKey(name).export({ format: 'jwk' }), ...more });
export const keySet = (...keys) => ({ keys });

export const base64url = (data) => Buffer.from(data).toString('base64url');

/** A value that stands in the JSON as it is written here: 1e400, a name twice. */
export class Raw {
  constructor(text) { this.text = text; }
}
export const raw = (text) => new Raw(text);

export function json(value) {
  if (value instanceof Raw) return value.text;
  if (Array.isArray(value)) return `[${value.map(json).join(',')}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  const members = Object.entries(value).filter(([, member]) => member !== undefined);
  return `{${members.map(([name, member]) => `${JSON.stringify(name)}:${json(member)}`).join(',')}}`;
}

// ECDSA and RSA-PSS give another signature each time. Those that were given once are kept, so that a new run changes nothing else.
const keptFile = here('kept_signatures.json');
const kept = fs.existsSync(keptFile) ? JSON.parse(fs.readFileSync(keptFile, 'utf8')) : {};
const used = {};
export const saveKept = () => fs.writeFileSync(keptFile, JSON.stringify(used, Object.keys(used).sort(), 1) + '\n');

export function options(alg, extra = {}) {
  if (alg.startsWith('ES')) return { dsaEncoding: 'ieee-p1363', ...extra };
  if (alg.startsWith('PS')) return { padding: crypto.constants.RSA_PKCS1_PSS_PADDING, saltLength: crypto.constants.RSA_PSS_SALTLEN_DIGEST, ...extra };
  return extra;
}
export const hash = (alg) => (alg.startsWith('Ed') ? null : `sha${alg.slice(2, 5)}`);

export function sign(alg, key, input, extra = {}) {
  const make = () => crypto.sign(hash(alg), Buffer.from(input), { key: secret(key), ...options(alg, extra) });
  if (!/^[EP]S/.test(alg)) return make();
  const name = crypto.createHash('sha256').update(json([alg, key, extra, input])).digest('base64url');
  const known = used[name] ?? kept[name];
  const old = known && Buffer.from(known, 'base64url');
  const good = old && crypto.verify(hash(alg), Buffer.from(input), { key: publicKey(key), ...options(alg, extra) }, old);
  const signature = good ? old : make();
  used[name] = base64url(signature);
  return signature;
}

export const issuer = 'https://idp.example.com/';
export const audience = 'https://api.example.com';
export const claims = {
  iss: issuer, aud: audience, sub: 'user-1', client_id: 'client-1', iat: now - 10, exp: now + 600, jti: 'id-1',
  scope: 'orders:read orders:write',
};

/**
 * The compact token. Of header and claims, members that are undefined go; headerText and payloadText (text or bytes) replace all of
 * it. spell(part, at) changes how header (0) and payload (1) are spelt before they are signed; edit() is given the three parts and
 * returns the text.
 */
export function compact({ alg = 'EdDSA', key = 'ed25519', signAs = alg, header = {}, claims: changed = {}, headerText, payloadText, salt, spell = (part) => part, edit }) {
  const head = spell(base64url(headerText ?? json({ alg, kid: key, typ: 'at+jwt', ...header })), 0);
  const body = spell(base64url(payloadText ?? json({ ...claims, ...changed })), 1);
  const signature = sign(signAs, key, `${head}.${body}`, salt === undefined ? {} : { saltLength: salt });
  const parts = [head, body, base64url(signature)];
  return edit ? edit(parts, signature, key) : parts.join('.');
}

/** Collects rows under unique names. */
export class Rows {
  list = [];
  names = new Set();

  add(name, expected, spec = {}) {
    if (this.names.has(name)) throw new Error(`twice: ${name}`);
    this.names.add(name);
    const { rules, several, sets, set, jwks, es256k, fetches, grants, denies } = spec;
    const codes = [expected].flat();
    this.list.push({
      name,
      expected: codes.length === 1 ? codes[0] : codes,
      now: spec.now,
      rules,
      several,
      sets,
      set,
      jwks,
      es256k,
      fetches: fetches ?? (codes[0] === 'bad_signature' ? 1 : undefined),
      grants,
      denies,
      token: spec.token ?? compact(spec),
    });
  }
}
