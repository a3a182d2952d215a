// A token on either side of each rule. One fault a token; where the rules allow two readings, both codes.
import crypto from 'node:crypto';

import { Rows, audience, base64url, claims, compact, json, jwk, keySet, now, publicKey, raw, sign } from './signing.mjs';

const sig = (name, kid = name, more = {}) => jwk(name, { kid, use: 'sig', ...more });
export const longKid = 'k'.repeat(1024);

export const sets = {
  all: keySet(
    sig('rsa'), sig('p256'), sig('p384'), sig('p521'), sig('secp256k1'), sig('ed25519'), sig('ed448'),
    sig('rsa_other', 'rsa-PS256', { alg: 'PS256' }), sig('p256_other', 'p256-ES256', { alg: 'ES256' }),
    sig('ed25519_b', 'ed25519-EdDSA', { alg: 'EdDSA' })),
  elsewhere: keySet(sig('ed25519_e', 'nobody asks for this one')),
  one_without_kid: keySet(jwk('ed25519')),
  four: keySet(sig('ed25519_b', 'b'), sig('ed25519_c', 'c'), sig('ed25519_d', 'd'), sig('ed25519', 'a')),
  five: keySet(sig('ed25519', 'a'), sig('ed25519_b', 'b'), sig('ed25519_c', 'c'), sig('ed25519_d', 'd'), sig('ed25519_e', 'e')),
  rsa_only: keySet(sig('rsa')),
  twins: keySet(sig('ed25519', 'k'), sig('ed25519_b', 'k')),
  one_kid_three_kinds: keySet(sig('rsa', 'k'), sig('p256', 'k'), sig('ed25519', 'k')),
  one_kid_three_algs: keySet(sig('rsa', 'k', { alg: 'RS256' }), sig('rsa', 'k', { alg: 'RS384' }), sig('rsa', 'k', { alg: 'RS512' })),
  x5t: keySet(jwk('ed25519', { x5t: 'VEbUnvyMZM2oIaIjULA9n6pCpQQ' }), jwk('ed25519_b', { 'x5t#S256': 'h6T_kcUyWA-mBiT2nBwpIrXx6KW9rnvoYzbTQnQ0xRI' })),
  odd_kids: keySet(sig('ed25519', longKid), sig('ed25519_b', '../../../etc/passwd'), sig('ed25519_c', "' OR 1=1 --"), sig('ed25519_d', 'Schlüssel \u{1F511}')),
  not_for_signatures: keySet(jwk('rsa', { kid: 'enc', use: 'enc' }), jwk('p256', { kid: 'derive', key_ops: ['deriveBits'] }), sig('ed25519')),
  one_kid: keySet(sig('ed25519', 'k')),
  issuer_a: keySet(sig('ed25519', 'k'), sig('p256', 'only-a')),
  issuer_b: keySet(sig('ed25519_b', 'k'), sig('ed25519_c', 'only-b')),
};

export const rows = new Rows();
const add = rows.add.bind(rows);

// ---- algorithms and signatures ----

const algorithms = [
  ...['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'].map((alg) => [alg, 'rsa']),
  ['ES256', 'p256'], ['ES384', 'p384'], ['ES512', 'p521'], ['ES256K', 'secp256k1'],
  ['EdDSA', 'ed25519'], ['EdDSA', 'ed448'], ['Ed25519', 'ed25519'], ['Ed448', 'ed448'],
];
const flipped = (bytes, at) => { const out = Buffer.from(bytes); out[at] ^= 1; return out; };
const withSignature = (change) => ([head, body], signature, key) => `${head}.${body}.${base64url(change(signature, `${head}.${body}`, key))}`;

for (const [alg, key] of algorithms) {
  const what = { alg, key, es256k: alg === 'ES256K' || undefined };
  const title = `${alg} by ${key}`;
  add(`${title}: good`, 'good', what);
  add(`${title}: the first byte of the signature is another`, 'bad_signature', { ...what, edit: withSignature((s) => flipped(s, 0)) });
  add(`${title}: the last byte of the signature is another`, 'bad_signature', { ...what, edit: withSignature((s) => flipped(s, s.length - 1)) });
  add(`${title}: the signature lacks its last byte`, 'bad_signature', { ...what, edit: withSignature((s) => s.subarray(0, s.length - 1)) });
  add(`${title}: the signature lacks its first byte`, 'bad_signature', { ...what, edit: withSignature((s) => s.subarray(1)) });
  add(`${title}: the signature has a byte more`, 'bad_signature', { ...what, edit: withSignature((s) => Buffer.concat([s, Buffer.alloc(1)])) });
  add(`${title}: a zero byte before the signature`, 'bad_signature', { ...what, edit: withSignature((s) => Buffer.concat([Buffer.alloc(1), s])) });
  add(`${title}: the signature is twice as long`, 'bad_signature', { ...what, edit: withSignature((s) => Buffer.concat([s, s])) });
  add(`${title}: the signature is all zeros`, 'bad_signature', { ...what, edit: withSignature((s) => Buffer.alloc(s.length)) });
  add(`${title}: the signature of another token`, 'bad_signature', { ...what, edit: withSignature(() => sign(alg, key, `${base64url('{"alg":"x"}')}.e30`)) });
  add(`${title}: another sub under the signature`, 'bad_signature', {
    ...what, edit: ([head, , signature]) => `${head}.${base64url(json({ ...claims, sub: 'admin' }))}.${signature}`,
  });
  add(`${title}: not among the rules' algorithms`, 'unsupported_algorithm', { ...what, rules: { algorithms: [alg === 'RS256' ? 'PS256' : 'RS256'] } });
  add(`${title}: among the rules' algorithms`, 'good', { ...what, rules: { algorithms: ['RS256', alg] } });
}
add('no signature at all', ['bad_signature', 'malformed_token'], { edit: ([head, body]) => `${head}.${body}.`, fetches: -1 });

add('ES256K where nobody asked for it', 'unsupported_algorithm', { alg: 'ES256K', key: 'secp256k1', fetches: -1 });
add('another key of the same kind signed: RS256', 'bad_signature', { alg: 'RS256', key: 'rsa_other', header: { kid: 'rsa' } });
add('another key of the same kind signed: ES256', 'bad_signature', { alg: 'ES256', key: 'p256_other', header: { kid: 'p256' } });
add('another key of the same kind signed: EdDSA', 'bad_signature', { key: 'ed25519_c', header: { kid: 'ed25519' } });
add('RS256 and PS256 are two: alg says PS256, the signature is of PKCS #1 v1.5', 'bad_signature', { alg: 'PS256', signAs: 'RS256', key: 'rsa' });
add('RS256 and PS256 are two: alg says RS256, the signature is of PSS', 'bad_signature', { alg: 'RS256', signAs: 'PS256', key: 'rsa' });
add('RS256 and RS384 are two: alg says RS384', 'bad_signature', { alg: 'RS384', signAs: 'RS256', key: 'rsa' });
add('ES256: the digest of ES384', 'bad_signature', { alg: 'ES256', key: 'p256', edit: withSignature((s, input, key) => sign('ES384', key, input)) });
for (const alg of ['PS256', 'PS384', 'PS512']) {
  add(`${alg}: a salt of no bytes`, 'bad_signature', { alg, key: 'rsa', salt: 0 });
  add(`${alg}: a salt of 20 bytes`, 'bad_signature', { alg, key: 'rsa', salt: 20 });
  add(`${alg}: a salt as long as can be`, 'bad_signature', { alg, key: 'rsa', salt: 256 - { PS256: 32, PS384: 48, PS512: 64 }[alg] - 2 });
}

const number = (bytes) => BigInt(`0x${Buffer.from(bytes).toString('hex')}`);
const bytesOf = (value, length) => Buffer.from(value.toString(16).padStart(2 * length, '0'), 'hex');
const orders = {
  ES256: ['p256', 32, 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n],
  ES384: ['p384', 48, 0xffffffffffffffffffffffffffffffffffffffffffffffffc7634d81f4372ddf581a0db248b0a77aecec196accc52973n],
  ES512: ['p521', 66, 2n ** 521n - 2n ** 260n + 0xa51868783bf2f966b7fcc0148f709a5d03bb5c9b8899c47aebb6fb71e91386409n],
};
for (const [alg, [key, length, order]] of Object.entries(orders)) {
  const half = (s, at) => s.subarray(at * length, (at + 1) * length);
  const pair = (change) => withSignature((s) => Buffer.concat(change(half(s, 0), half(s, 1))));
  add(`${alg}: n - s in the place of s is a signature, too`, 'good', { alg, key, edit: pair((r, s) => [r, bytesOf(order - number(s), length)]) });
  add(`${alg}: r is 0`, 'bad_signature', { alg, key, edit: pair((r, s) => [Buffer.alloc(length), s]) });
  add(`${alg}: s is 0`, 'bad_signature', { alg, key, edit: pair((r) => [r, Buffer.alloc(length)]) });
  add(`${alg}: r is n`, 'bad_signature', { alg, key, edit: pair((r, s) => [bytesOf(order, length), s]) });
  add(`${alg}: s is n`, 'bad_signature', { alg, key, edit: pair((r) => [r, bytesOf(order, length)]) });
  add(`${alg}: r and s have changed places`, 'bad_signature', { alg, key, edit: pair((r, s) => [s, r]) });
  add(`${alg}: r lacks a byte and s has one more`, 'bad_signature', { alg, key, edit: pair((r, s) => [r.subarray(1), Buffer.from([0]), s]) });
  add(`${alg}: the signature as DER`, 'bad_signature', {
    alg, key, edit: pair((r, s) => {
      const integer = (n) => {
        let b = bytesOf(number(n), length);
        while (b.length > 1 && b[0] === 0 && b[1] < 128) b = b.subarray(1);
        if (b[0] > 127) b = Buffer.concat([Buffer.alloc(1), b]);
        return Buffer.concat([Buffer.from([2, b.length]), b]);
      };
      const both = Buffer.concat([integer(r), integer(s)]);
      return [Buffer.from(both.length > 127 ? [0x30, 0x81, both.length] : [0x30, both.length]), both];
    }),
  });
}
{
  const order = (1n << 252n) + 27742317777372353535851937790883648493n;
  const little = (b) => number(Buffer.from(b).reverse());
  add('EdDSA: S + L in the place of S', 'bad_signature', {
    edit: withSignature((s) => Buffer.concat([s.subarray(0, 32), bytesOf(little(s.subarray(32)) + order, 32).reverse()])),
  });
  const modulus = number(Buffer.from(jwk('rsa').n, 'base64url'));
  for (let i = 0; ; ++i) {  // a signature that has room for the modulus in 2,048 bits
    const spec = { alg: 'RS256', key: 'rsa', claims: { jti: `id-${i}` } };
    const signature = number(Buffer.from(compact(spec).split('.')[2], 'base64url'));
    if (signature + modulus >= 1n << 2048n) continue;
    add('RS256: the modulus added to the signature', 'bad_signature', { ...spec, edit: withSignature((s) => bytesOf(number(s) + modulus, 256)) });
    break;
  }
}

// ---- which key ----

const wrongKey = (name, spec) => add(name, 'key_not_found', spec);  // its kid is known: no fetch can help
wrongKey('a key of another kind: RS256 and the kid of an EC key', { alg: 'RS256', key: 'rsa', header: { kid: 'p256' } });
wrongKey('a key of another kind: ES256 and the kid of an RSA key', { alg: 'ES256', key: 'p256', header: { kid: 'rsa' } });
wrongKey('a key of another kind: EdDSA and the kid of an RSA key', { header: { kid: 'rsa' } });
wrongKey('a key of another kind: ES256 and the kid of a P-384 key', { alg: 'ES256', key: 'p256', header: { kid: 'p384' } });
wrongKey('a key of another kind: ES384 and the kid of a P-256 key', { alg: 'ES384', key: 'p384', header: { kid: 'p256' } });
wrongKey('a key of another kind: Ed25519 and the kid of an Ed448 key', { alg: 'Ed25519', header: { kid: 'ed448' } });
wrongKey('a key of another kind: Ed448 and the kid of an Ed25519 key', { alg: 'Ed448', key: 'ed448', header: { kid: 'ed25519' } });
wrongKey("a key's own alg: a PS256 key, and RS256", { alg: 'RS256', key: 'rsa_other', header: { kid: 'rsa-PS256' } });
wrongKey("a key's own alg: a PS256 key, and PS512", { alg: 'PS512', key: 'rsa_other', header: { kid: 'rsa-PS256' } });
add("a key's own alg: a PS256 key, and PS256", 'good', { alg: 'PS256', key: 'rsa_other', header: { kid: 'rsa-PS256' } });
add("a key's own alg: an ES256 key, and ES256", 'good', { alg: 'ES256', key: 'p256_other', header: { kid: 'p256-ES256' } });
add("a key's own alg: an EdDSA key, and EdDSA", 'good', { key: 'ed25519_b', header: { kid: 'ed25519-EdDSA' } });
add("a key's own alg: an EdDSA key, and its other name Ed25519", 'good', { alg: 'Ed25519', key: 'ed25519_b', header: { kid: 'ed25519-EdDSA' } });

add('a kid that the set lacks', 'key_not_found', { header: { kid: 'nobody' }, fetches: 1 });
add('a kid that differs in the case of a letter', 'key_not_found', { header: { kid: 'ED25519' }, fetches: 1 });
add('a kid with a blank behind it', 'key_not_found', { header: { kid: 'ed25519 ' }, fetches: 1 });
add('a kid that is the beginning of one', 'key_not_found', { header: { kid: 'ed2551' }, fetches: 1 });
add('a kid that is a path of no key', 'key_not_found', { header: { kid: '/dev/null' }, fetches: 1 });
add('a kid that is escaped letter by letter', 'good', { header: { kid: raw('"\\u0065\\u0064\\u0032\\u0035\\u0035\\u0031\\u0039"') } });
add('a kid of 1,024 bytes', 'good', { set: 'odd_kids', header: { kid: longKid } });
add('a kid of 1,025 bytes', 'malformed_token', { set: 'odd_kids', header: { kid: `${longKid}k` } });
add('a kid that is a path', 'good', { set: 'odd_kids', key: 'ed25519_b', header: { kid: '../../../etc/passwd' } });
add('a kid that is a piece of SQL', 'good', { set: 'odd_kids', key: 'ed25519_c', header: { kid: "' OR 1=1 --" } });
add('a kid that is not ASCII', 'good', { set: 'odd_kids', key: 'ed25519_d', header: { kid: 'Schlüssel \u{1F511}' } });
add('a kid that is not ASCII, escaped', 'good', { set: 'odd_kids', key: 'ed25519_d', header: { kid: raw('"Schl\\u00fcssel \\uD83D\\uDD11"') } });
add('the key of that kid is for encryption', 'key_not_found', { set: 'not_for_signatures', alg: 'RS256', key: 'rsa', header: { kid: 'enc' }, fetches: 1 });
add('the key of that kid is for key agreement', 'key_not_found', { set: 'not_for_signatures', alg: 'ES256', key: 'p256', header: { kid: 'derive' }, fetches: 1 });
add('two keys of one kid that both fit', 'key_ambiguous', { set: 'twins', header: { kid: 'k' } });
for (const [alg, key] of [['RS256', 'rsa'], ['ES256', 'p256'], ['EdDSA', 'ed25519']])
  add(`one kid for keys of three kinds: the ${alg} one`, 'good', { set: 'one_kid_three_kinds', alg, key, header: { kid: 'k' } });
for (const alg of ['RS256', 'RS384', 'RS512'])
  add(`one kid for one key with three algs: ${alg}`, 'good', { set: 'one_kid_three_algs', alg, key: 'rsa', header: { kid: 'k' } });
wrongKey('one kid for one key with three algs: none of them', { set: 'one_kid_three_algs', alg: 'PS256', key: 'rsa', header: { kid: 'k' } });

for (const [title, kid] of [['no kid', undefined], ['kid is null', null], ['kid is empty', '']]) {
  add(`${title}: the only key has none`, 'good', { set: 'one_without_kid', header: { kid } });
  add(`${title}: the last of four keys that fit`, 'good', { set: 'four', header: { kid } });
  add(`${title}: the first of four keys that fit`, 'good', { set: 'four', key: 'ed25519_b', header: { kid } });
  add(`${title}: none of four keys verifies`, 'bad_signature', { set: 'four', key: 'ed25519_e', header: { kid } });
  add(`${title}: five keys fit`, 'key_ambiguous', { set: 'five', header: { kid } });
  add(`${title}: of many keys only those that fit count`, 'good', { alg: 'ES384', key: 'p384', header: { kid } });
  add(`${title}: no key fits`, 'key_not_found', { set: 'rsa_only', header: { kid }, fetches: -1 });
}
add('with a kid keys are not tried in turn', 'key_not_found', { set: 'one_without_kid', header: { kid: 'a' }, fetches: 1 });
add('with a kid keys are not tried in turn, also when the right one follows', 'bad_signature', { set: 'four', header: { kid: 'b' } });
const x5t = 'VEbUnvyMZM2oIaIjULA9n6pCpQQ', x5tS256 = 'h6T_kcUyWA-mBiT2nBwpIrXx6KW9rnvoYzbTQnQ0xRI';
add('x5t without a kid', 'good', { set: 'x5t', header: { kid: undefined, x5t } });
add('x5t beside an empty kid', 'good', { set: 'x5t', header: { kid: '', x5t } });
add('x5t#S256 without a kid', 'good', { set: 'x5t', key: 'ed25519_b', header: { kid: undefined, 'x5t#S256': x5tS256 } });
add('x5t#S256 comes before x5t', 'good', { set: 'x5t', key: 'ed25519_b', header: { kid: undefined, x5t: 'unknown', 'x5t#S256': x5tS256 } });
add('x5t without a kid: no key has it', 'key_not_found', { set: 'x5t', header: { kid: undefined, x5t: 'unknown' }, fetches: 1 });
add('x5t of another key', 'bad_signature', { set: 'x5t', key: 'ed25519_b', header: { kid: undefined, x5t } });
add('x5t beside a kid is not read', 'good', { header: { x5t: 'unknown', 'x5t#S256': 'unknown' } });
add('x5t of another kind beside a kid', 'good', { header: { x5t: 5, 'x5t#S256': [] } });

// ---- form ----

add('empty', 'token_missing', { token: '' });
const good = compact({});
const [h, p, s] = good.split('.');
const form = (name, token) => add(name, 'malformed_token', { token });
form('one part', h);
form('two parts', `${h}.${p}`);
form('four parts', `${h}.${p}.${s}.${s}`);
form('four parts, the last one empty', `${h}.${p}.${s}.`);
form('five parts, as a JWE has', `${h}.${p}.${s}.${s}.${s}`);
form('a JWE of A.3 of RFC 7516', [
  'eyJhbGciOiJBMTI4S1ciLCJlbmMiOiJBMTI4Q0JDLUhTMjU2In0', '6KB707dM9YTIgHtLvtgWQ8mKwboJW3of9locizkDTHzBC2IlrT1oOQ', 'AxY8DCtDaGlsbGljb3RoZQ',
  'KDlTtXchhZTGufMYmOYGS4HffxPSUrfmqCHXaI9wOGY', 'U0m_YmjN04DJvceFICbCVQ'].join('.'));
form('one dot', '.');
form('two dots', '..');
form('three dots', '...');
form('100 dots', '.'.repeat(100));
form('a dot before it', `.${good}`);
form('the header is empty', `.${p}.${s}`);
form('the payload is empty', compact({ payloadText: '' }));
form('two dots in a row', `${h}..${p}.${s}`);
form('an opaque access token', 'ya29.a0AfH6SMBx-3h2k');
form('no token at all but a word', 'undefined');
form('the flattened JSON serialisation', json({ payload: p, protected: h, signature: s }));
form('the general JSON serialisation', json({ payload: p, signatures: [{ protected: h, signature: s }] }));
form('JSON', json(claims));
form('Bearer before it', `Bearer ${good}`);
form('quotes round it', `"${good}"`);
const places = ['header', 'payload', 'signature'];
const altered = (at, change) => {  // what is spelt otherwise is signed as it is spelt
  if (at < 2) return compact({ spell: (part, place) => (place === at ? change(part) : part) });
  return compact({ edit: ([a, b, c]) => `${a}.${b}.${change(c)}` });
};
for (const [what, text] of [['a blank', ' '], ['a line feed', '\n'], ['CR and LF', '\r\n'], ['a tab', '\t'], ['a zero byte', '\0'], ['a no-break space', '\u00a0']]) {
  form(`${what} before it`, text + good);
  form(`${what} behind it`, good + text);
  form(`${what} before a dot`, altered(0, (part) => part + text));
  form(`${what} behind a dot`, altered(1, (part) => text + part));
}
for (const at of [0, 1, 2]) {
  const bad = (what, change) => form(`${what} in the ${places[at]}`, altered(at, change));
  bad('padding', (part) => `${part}=`);
  bad('two padding characters', (part) => `${part}==`);
  bad('a blank', (part) => `${part.slice(0, 8)} ${part.slice(8)}`);
  bad('a line break', (part) => `${part.slice(0, 8)}\n${part.slice(8)}`);
  bad('the + of the other alphabet', (part) => `${part.slice(0, 8)}+${part.slice(9)}`);
  bad('the / of the other alphabet', (part) => `${part.slice(0, 8)}/${part.slice(9)}`);
  bad('a byte that no alphabet has', (part) => `${part.slice(0, 8)}!${part.slice(9)}`);
  bad('a zero byte', (part) => `${part.slice(0, 8)}\0${part.slice(9)}`);
  bad('a letter that is not ASCII', (part) => `${part.slice(0, 8)}é${part.slice(9)}`);
  bad('a length that no bytes have', (part) => part.slice(0, part.length - ((part.length + 3) % 4)));
}
const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_';
const spare = (part) => part.slice(0, -1) + alphabet[alphabet.indexOf(part.at(-1)) | 1];
for (const rest of [1, 2]) {
  const blanks = (text) => text + ' '.repeat((rest - (Buffer.byteLength(text) % 3) + 3) % 3);
  const headerText = blanks(json({ alg: 'EdDSA', kid: 'ed25519', typ: 'at+jwt' })), payloadText = blanks(json(claims));
  add(`blanks behind header and payload (${rest} bytes over)`, 'good', { headerText, payloadText });
  form(`an unused bit is set in the header (${rest} bytes over)`, compact({ headerText, spell: (part, at) => (at === 0 ? spare(part) : part) }));
  form(`an unused bit is set in the payload (${rest} bytes over)`, compact({ payloadText, spell: (part, at) => (at === 1 ? spare(part) : part) }));
}
form('an unused bit is set in the signature of 64 bytes', `${h}.${p}.${spare(s)}`);
form('an unused bit is set in the signature of 256 bytes', compact({ alg: 'RS256', key: 'rsa', edit: ([a, b, c]) => `${a}.${b}.${spare(c)}` }));
add('as long as max_token_bytes', 'good', { rules: { max_token_bytes: good.length } });
add('a byte longer than max_token_bytes', 'malformed_token', { rules: { max_token_bytes: good.length - 1 } });
const sized = (bytes) => {
  const bare = compact({ payloadText: json({ ...claims, pad: '' }) }).length;
  for (let n = Math.floor(((bytes - bare) * 3) / 4) - 4; ; ++n) {
    const token = compact({ payloadText: json({ ...claims, pad: 'x'.repeat(n) }) });
    if (token.length >= bytes) return { token };
  }
};
add('16 KiB', 'good', sized(16384));
add('a little more than 16 KiB', 'malformed_token', sized(16385));
add('a little more than 16 KiB where that is allowed', 'good', { ...sized(16386), rules: { max_token_bytes: 32768 } });

// ---- JSON ----

const headerJson = json({ alg: 'EdDSA', kid: 'ed25519', typ: 'at+jwt' }), payloadJson = json(claims);
const nested = (levels) => '['.repeat(levels) + ']'.repeat(levels);
const objects = (levels) => '{"a":'.repeat(levels) + '1' + '}'.repeat(levels);
for (const [part, text, field] of [['header', headerJson, 'headerText'], ['payload', payloadJson, 'payloadText']]) {
  const yes = (what, changed) => add(`JSON of the ${part}: ${what}`, 'good', { [field]: changed });
  const no = (what, changed) => add(`JSON of the ${part}: ${what}`, 'malformed_token', { [field]: changed });
  const plus = (member) => `${text.slice(0, -1)},${member}}`;
  yes('blanks, tabs and line breaks between', `\r\n ${text.replaceAll(':', ' : ').replaceAll(',', '\t,\n').replaceAll('https : ', 'https:')} \t\n`);
  yes('an empty object and an empty array', plus('"o":{},"a":[]'));
  yes('an empty name', plus('"":1'));
  yes('32 levels of arrays', plus(`"a":${nested(31)}`));
  no('33 levels of arrays', plus(`"a":${nested(32)}`));
  yes('32 levels of objects', plus(`"a":${objects(31)}`));
  no('33 levels of objects', plus(`"a":${objects(32)}`));
  no('2,000 levels', plus(`"a":${nested(2000)}`));
  yes('257 members more', plus(Array.from({ length: 257 }, (_, i) => `"m${i}":${i}`).join(',')));
  no('a BOM before it', Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), Buffer.from(text)]));
  no('a zero byte behind it', `${text}\0`);
  no('a zero byte and more behind it', `${text}\0{"sub":"admin"}`);
  no('a zero byte before it', `\0${text}`);
  no('a zero byte in a string', plus('"a":"b\0c"'));
  yes('an escaped zero byte in a string', plus('"a":"b\\u0000c"'));
  no('a second object behind it', `${text}{}`);
  no('a comma behind it', `${text},`);
  no('a letter behind it', `${text}x`);
  no('cut short', text.slice(0, -1));
  no('cut short in a string', text.slice(0, -2));
  no('a comma too many', `${text.slice(0, -1)},}`);
  no('a comment', `${text.slice(0, -1)}/* */}`);
  no('single quotes', text.replaceAll('"', "'"));
  no('a name without quotes', plus('a:1'));
  no('NaN', plus('"a":NaN'));
  no('Infinity', plus('"a":Infinity'));
  no('a number with a plus', plus('"a":+1'));
  no('a number with a leading zero', plus('"a":01'));
  no('a number in hexadecimal', plus('"a":0x10'));
  no('a line feed in a string', plus('"a":"b\nc"'));
  no('an unknown escape', plus('"a":"\\x41"'));
  no('half of a surrogate pair', plus('"a":"\\ud800"'));
  no('the second half of a surrogate pair', plus('"a":"\\udc00"'));
  no('a surrogate pair in the wrong order', plus('"a":"\\udc00\\ud800"'));
  const bytes = (...b) => Buffer.concat([Buffer.from(`${text.slice(0, -1)},"a":"`), Buffer.from(b), Buffer.from('"}')]);
  no('a byte that is no UTF-8', bytes(0xff));
  no('a continuation byte alone', bytes(0x80));
  no('an overlong slash', bytes(0xc0, 0xaf));
  no('a surrogate as UTF-8', bytes(0xed, 0xa0, 0x80));
  no('beyond U+10FFFF', bytes(0xf4, 0x90, 0x80, 0x80));
  no('UTF-8 cut short', bytes(0xe2, 0x82));
  yes('UTF-8 of four bytes', bytes(0xf0, 0x9f, 0x94, 0x91));
  no('a name twice', plus('"a":1,"a":1'));
  no('a name twice, once with an escape', plus('"a":1,"\\u0061":2'));
  no('a name twice in an object within', plus('"a":{"b":1,"c":2,"b":3}'));
  no('a name twice in an object within an array', plus('"a":[{"b":1,"b":3}]'));
  no('a name twice, 20 levels deep', plus(`"a":${'['.repeat(20)}{"b":1,"b":1}${']'.repeat(20)}`));
  yes('a name twice, in two objects', plus('"a":{"b":1},"c":{"b":1}'));
  yes('names that differ in case', plus('"a":1,"A":2'));
  for (const [what, other] of [['an array', `[${text}]`], ['a string', '"x"'], ['a number', '1'], ['null', 'null'], ['true', 'true'], ['only blanks', '  ']]) no(what, other);
}
add('JSON of the payload: another JWT', 'malformed_token', { header: { cty: 'JWT' }, payloadText: good });
add('JSON of the payload: cty is not looked at', 'good', { header: { cty: 'JWT' } });
add('JSON of the payload: sub twice', 'malformed_token', { payloadText: `${payloadJson.slice(0, -1)},"sub":"user-1"}` });
add('JSON of the payload: exp twice, once with an escape', 'malformed_token', { payloadText: `${payloadJson.slice(0, -1)},"e\\u0078p":9999999999}` });
add('JSON of the header: alg twice', 'malformed_token', { headerText: `${headerJson.slice(0, -1)},"alg":"EdDSA"}` });
add('JSON of the header: kid twice', 'malformed_token', { headerText: `${headerJson.slice(0, -1)},"kid":"ed25519"}` });
{
  const many = (count) => `${payloadJson.slice(0, -1)},${Array.from({ length: count - Object.keys(claims).length }, (_, i) => `"${i.toString(36)}":1`).join(',')}}`;
  add('JSON of the payload: 4,096 members', 'good', { payloadText: many(4096), rules: { max_token_bytes: 1 << 20 } });
  add('JSON of the payload: 4,097 members', 'malformed_token', { payloadText: many(4097), rules: { max_token_bytes: 1 << 20 } });
}

// ---- header ----

for (const alg of ['none', 'None', 'NONE', 'nOnE', 'noNe', 'none ', ' none', 'null', '']) {
  const headerText = json({ alg, kid: 'ed25519', typ: 'at+jwt' });
  const code = alg === '' ? ['unsupported_algorithm', 'malformed_token'] : 'unsupported_algorithm';
  add(`alg ${JSON.stringify(alg)} with a signature`, code, { headerText });
  add(`alg ${JSON.stringify(alg)} without a signature`, code, { headerText, edit: ([a, b]) => `${a}.${b}.` });
}
for (const [alg, bits] of [['HS256', 256], ['HS384', 384], ['HS512', 512]]) {
  for (const [form_, secret] of [
    ['PEM', publicKey('rsa').export({ type: 'spki', format: 'pem' })], ['DER', publicKey('rsa').export({ type: 'spki', format: 'der' })], ['nothing', '']]) {
    const input = `${base64url(json({ alg, kid: 'rsa', typ: 'at+jwt' }))}.${p}`;
    const mac = crypto.createHmac(`sha${bits}`, secret).update(input).digest('base64url');
    add(`${alg} with the public key as the secret (${form_})`, 'unsupported_algorithm', { token: `${input}.${mac}` });
  }
}
for (const alg of ['RS1', 'RS128', 'rs256', 'RS256 ', ' RS256', 'RS256\u0000', 'Rs256', 'SHA256withRSA', 'RSA-OAEP', 'dir', 'A128KW', 'PBES2-HS256+A128KW', 'eddsa', 'ED25519', 'ES256k', 'X25519', 'HS256', 'ES521'])
  add(`alg ${JSON.stringify(alg)} is none that we know`, 'unsupported_algorithm', { alg, signAs: 'RS256', key: 'rsa' });
const head = (name, expected, header, more = {}) => add(`header: ${name}`, expected, { header, ...more });
const malformedHeader = (name, header) => head(name, 'malformed_token', header);
malformedHeader('no alg', { alg: undefined });
malformedHeader('alg is null', { alg: null });
malformedHeader('alg is a number', { alg: 256 });
malformedHeader('alg is an array', { alg: ['EdDSA'] });
malformedHeader('alg is an object', { alg: {} });
malformedHeader('alg is true', { alg: true });
malformedHeader('kid is a number', { kid: 25519 });
malformedHeader('kid is an array', { kid: ['ed25519'] });
malformedHeader('kid is an object', { kid: {} });
malformedHeader('kid is true', { kid: true });
malformedHeader('typ is a number', { typ: 1 });
malformedHeader('typ is an array', { typ: ['JWT'] });
malformedHeader('typ is false', { typ: false });
head('typ is null', 'good', { typ: null });
for (const [what, crit] of [['an empty array', []], ['null', null], ['a list of one that is there', ['exp']], ['b64', ['b64']], ['a string', 'b64'], ['false', false], ['an object', {}], ['a number', 0]])
  malformedHeader(`crit is ${what}`, { crit, ...(Array.isArray(crit) && crit.length ? { [crit[0]]: true } : {}) });
head('b64 is true', 'good', { b64: true });
head('b64 is null', 'good', { b64: null });
for (const [what, b64] of [['false', false], ['a string', 'true'], ['1', 1], ['0', 0], ['an array', []], ['an object', {}]]) malformedHeader(`b64 is ${what}`, { b64 });
add('header: b64 is false and the payload stands as it is', 'malformed_token', { header: { b64: false, crit: ['b64'] }, edit: ([a, , c]) => `${a}.x.${c}` });
head('enc is null', 'good', { enc: null });
for (const [what, enc] of [['a name', 'A256GCM'], ['an empty string', ''], ['false', false], ['a number', 1], ['an object', {}]]) malformedHeader(`enc is ${what}`, { enc });
head('jku, x5u, jwk and x5c of somebody else are not read', 'good', {
  jku: 'https://evil.example/jwks.json', x5u: 'https://evil.example/cert.pem', jwk: jwk('ed25519_e'), x5c: ['MIIB'],
});
head('jku, x5u, jwk and x5c of any type are not read', 'good', { jku: 1, x5u: null, jwk: [], x5c: {} });
head('the key stands in jwk, and kid is that of another', 'bad_signature', { kid: 'ed25519', jwk: jwk('ed25519_e') }, { key: 'ed25519_e' });
head('the key stands in jwk, and kid is unknown', 'key_not_found', { kid: 'mine', jwk: jwk('ed25519_e') }, { key: 'ed25519_e', fetches: 1 });
head('the key stands in jwk, and there is no kid', 'bad_signature', { kid: undefined, jwk: jwk('ed25519_e') }, { key: 'ed25519_e' });
head('jku leads to the key, and kid is unknown', 'key_not_found', { kid: 'mine', jku: 'https://evil.example/jwks.json' }, { key: 'ed25519_e', fetches: 1 });
head('members that nobody knows', 'good', { nonce: 'n', zip: 'NONE', ver: '1.0', tty: 'sfdc:access', 'pi.atm': 'x', cat: 'cl_B', gty: ['a'], iat: 'x', exp: 0, iss: 5 });
head('zip is DEF: there is no compression in a JWS', 'good', { zip: 'DEF' });

const types = (typ, expected, rules, title) => add(`typ ${typ === undefined ? '(none)' : JSON.stringify(typ)}, ${title}`, expected, { header: { typ }, rules });
const refusedType = 'token_type_mismatch';
for (const typ of [undefined, 'JWT', 'jwt', 'Jwt', 'application/jwt', 'Application/JWT', 'at+jwt', 'AT+JWT', 'at+JWT', 'application/at+jwt', 'APPLICATION/AT+JWT']) types(typ, 'good', undefined, 'the default rules');
for (const typ of ['JOSE', 'id+jwt', 'logout+jwt', 'dpop+jwt', 'secevent+jwt', 'at+jwt ', ' JWT', 'at+jw', 'JWTX', 'text/jwt', 'x/application/jwt', 'application/x/jwt', 'application/id+jwt', 'applicationjwt', 'application\\jwt', 'refresh', 'at jwt', 'at%2Bjwt'])
  types(typ, refusedType, undefined, 'the default rules');
const strict = { types: ['at+jwt'] };
for (const typ of ['at+jwt', 'AT+JWT', 'application/at+jwt']) types(typ, 'good', strict, 'only at+jwt');
for (const typ of [undefined, '', 'JWT', 'application/jwt', null]) types(typ, refusedType, strict, 'only at+jwt');
types('logout+jwt', 'good', { types: ['logout+jwt'] }, 'only logout+jwt');
types('application/logout+jwt', 'good', { types: ['logout+jwt'] }, 'only logout+jwt');
types('logout+jwt', 'good', { types: ['application/logout+jwt'] }, 'only application/logout+jwt');
types('application/okta-internal-at+jwt', 'good', { types: ['application/okta-internal-at+jwt'] }, 'its own rule');
types(undefined, 'good', { types: [''] }, 'only none');
types('JWT', refusedType, { types: [''] }, 'only none');
types('x/jwt', 'good', { types: ['x/jwt'] }, 'only x/jwt');
types('application/x/jwt', refusedType, { types: ['x/jwt'] }, 'only x/jwt: with a slash nothing is implied');

// ---- claims ----

const claim = (name, expected, changed, rules, more = {}) => add(`claims: ${name}`, expected, { claims: changed, rules, ...more });
const malformed = (name, changed, rules) => claim(name, 'malformed_token', changed, rules);

claim('only iss, aud and exp', 'good', { sub: undefined, client_id: undefined, iat: undefined, jti: undefined, scope: undefined });
claim('no claims at all', 'claim_missing', Object.fromEntries(Object.keys(claims).map((name) => [name, undefined])));
for (const name of ['iss', 'aud', 'exp']) {
  claim(`no ${name}`, 'claim_missing', { [name]: undefined });
  claim(`${name} is null`, 'claim_missing', { [name]: null });
}
for (const name of ['sub', 'iat', 'nbf', 'jti']) {
  claim(`no ${name}`, 'good', { [name]: undefined });
  claim(`${name} is null`, 'good', { [name]: null });
}
for (const name of ['iss', 'sub', 'jti']) {
  for (const [what, value] of [['a number', 5], ['0', 0], ['an array', [claims[name]]], ['an object', {}], ['true', true], ['false', false]]) malformed(`${name} is ${what}`, { [name]: value });
}
claim('sub is empty', 'good', { sub: '' });
claim('jti is empty', 'good', { jti: '' });
for (const [what, value] of [
  ['without the slash', 'https://idp.example.com'], ['with two slashes', 'https://idp.example.com//'], ['in capitals', 'HTTPS://IDP.EXAMPLE.COM/'], ['by http', 'http://idp.example.com/'],
  ['with more behind it', 'https://idp.example.com/evil'], ['with its port', 'https://idp.example.com:443/'], ['with a blank behind it', 'https://idp.example.com/ '], ['with a zero byte behind it', 'https://idp.example.com/\0'],
  ['empty', ''], ['its beginning', 'https://idp.example.com'.slice(0, 10)], ['another', 'https://other.example.com/'], ['escaped for URLs', 'https%3A%2F%2Fidp.example.com%2F'], ['with another e', 'https://idp.ехample.com/']])
  claim(`iss ${what}`, 'issuer_mismatch', { iss: value });
claim('iss with escapes is the same', 'good', { iss: raw('"https:\\/\\/idp.example\\u002ecom/"') });
claim('an issuer without a slash', 'good', { iss: 'https://idp.example.com' }, { issuer: 'https://idp.example.com' });
claim('an issuer that is no URL', 'good', { iss: 'accounts.google.com' }, { issuer: 'accounts.google.com' });

const bound = 'audience_mismatch';
claim('aud is an array of one', 'good', { aud: [audience] });
claim('aud is an array with ours among others', 'good', { aud: ['https://a.example', audience, 'https://b.example'] });
claim('aud is an array with ours as the last of 100', 'good', { aud: [...Array.from({ length: 99 }, (_, i) => `https://${i}.example`), audience] });
claim('aud is an array with ours twice', 'good', { aud: [audience, audience] });
claim('aud is an empty array', bound, { aud: [] });
claim('aud is an array of others', bound, { aud: ['https://a.example', 'https://b.example'] });
for (const [what, value] of [
  ['another', 'https://other.example.com'], ['empty', ''], ['with a slash behind it', `${audience}/`], ['in capitals', audience.toUpperCase()], ['its beginning', audience.slice(0, -1)], ['with more behind it', `${audience}.evil.example`],
  ['a list with blanks', `https://a.example ${audience}`], ['a list with commas', `${audience},https://a.example`], ['an array in a string', JSON.stringify([audience])], ['a star', '*'], ['of an ID token', 'client-1']]) {
  claim(`aud ${what}`, bound, { aud: value });
  claim(`aud ${what}, in an array`, bound, { aud: [value] });
}
for (const [what, value] of [['a number', 1], ['true', true], ['an object', { a: audience }], ['an array with a number', [audience, 1]], ['an array with a number before ours', [1, audience]], ['an array with null', [audience, null]], ['an array in an array', [[audience]]], ['an array with an object', [{}, audience]]])
  malformed(`aud is ${what}`, { aud: value });
const names = { audience: ['https://a.example', 'https://b.example'] };
claim('two names: the first', 'good', { aud: 'https://a.example' }, names);
claim('two names: the second', 'good', { aud: ['x', 'https://b.example'] }, names);
claim('two names: neither', bound, { aud: [audience] }, names);
claim('any_audience: another', 'good', { aud: 'https://other.example.com' }, { audience: [], any_audience: true });
claim('any_audience: none', 'good', { aud: undefined }, { audience: [], any_audience: true });
claim('any_audience: an empty array', 'good', { aud: [] }, { audience: [], any_audience: true });
const cognito = { audience_claim: 'client_id', audience: ['client-1'] };
claim('audience_claim stands in for aud', 'good', { aud: undefined }, cognito);
claim('audience_claim stands in for an aud that is null', 'good', { aud: null }, cognito);
claim('audience_claim is of another', bound, { aud: undefined, client_id: 'client-2' }, cognito);
claim('audience_claim is missing as well', 'claim_missing', { aud: undefined, client_id: undefined }, cognito);
claim('audience_claim is null', 'claim_missing', { aud: undefined, client_id: null }, cognito);
claim('audience_claim: an aud that is there decides against it', bound, { aud: audience }, cognito);
claim('audience_claim: an empty aud that is there decides against it', bound, { aud: [] }, cognito);
claim('audience_claim: an aud that is there decides for it', 'good', { aud: 'client-1', client_id: 'client-2' }, cognito);
claim('audience_claim: an array that holds us', 'good', { aud: undefined, resources: ['client-1'] }, { ...cognito, audience_claim: 'resources' });
claim('audience_claim of no text', [bound, 'malformed_token', 'claim_missing'], { aud: undefined, client_id: 1 }, cognito);
claim('audience_claim by a path', 'good', { aud: undefined, ctx: { client: 'client-1' } }, { ...cognito, audience_claim: '/ctx/client' });

// now - 60 is the last second of the default leeway
for (const [what, exp, expected] of [
  ['in a minute', now + 60, 'good'], ['now', now, 'good'], ['59 s ago', now - 59, 'good'], ['60 s ago', now - 60, 'token_expired'], ['61 s ago', now - 61, 'token_expired'], ['a year ago', now - 31536000, 'token_expired'],
  ['59.5 s ago', now - 59.5, 'good'], ['60.5 s ago', now - 60.5, 'token_expired'], ['0', 0, 'token_expired'], ['1', 1, 'token_expired'],
  ['a fraction ahead', now + 0.25, 'good'], ['as 1.7900006e9', raw('1.7900006e9'), 'good'], ['as 1790000600.0', raw('1790000600.0'), 'good'], ['as 17900006E+2', raw('17900006E+2'), 'good'],
  ['in the year 2262 and after', 9300000000, 'good'], ['the last second of the year 9999', 253402300799, 'good'], ['the last second of the year 9999, as a real', raw('2.53402300799e11'), 'good']])
  claim(`exp ${what}`, expected, { exp });
for (const [what, exp] of [
  ['is the first second of the year 10000', 253402300800], ['is the same as a real', raw('2.534023008e11')], ['is in milliseconds', now * 1000], ['is never (WSO2)', 9223372036854775], ['is the largest of 64 bits', raw('9223372036854775807')],
  ['does not fit 64 bits', raw('18446744073709551616')], ['is 1e300', raw('1e300')], ['is 1e400', raw('1e400')], ['is a number in quotes', String(now + 600)], ['is empty', ''], ['is a date', '2026-12-31T00:00:00Z'], ['is true', true], ['is false', false],
  ['is an array', [now + 600]], ['is an object', {}]]) malformed(`exp ${what}`, { exp });
for (const [what, exp] of [['is negative', -1], ['is a negative fraction', -0.5], ['is far in the past', -62135596800], ['is -1e300', raw('-1e300')]]) claim(`exp ${what}`, ['token_expired', 'malformed_token'], { exp });
for (const name of ['nbf', 'iat']) {
  for (const [what, value, expected] of [
    ['now', now, 'good'], ['a year ago', now - 31536000, 'good'], ['60 s ahead', now + 60, 'good'], ['59.5 s ahead', now + 59.5, 'good'], ['61 s ahead', now + 61, 'token_not_yet_valid'], ['60.5 s ahead', now + 60.5, 'token_not_yet_valid'],
    ['0', 0, 'good'], ['a fraction ago', now - 0.5, 'good'], ['as 1.79e9', raw('1.79e9'), 'good'], ['in the year 9999', 253402300799, 'token_not_yet_valid']])
    claim(`${name} ${what}`, expected, { [name]: value, exp: now + 3600 });
  for (const [what, value] of [
    ['is the first second of the year 10000', 253402300800], ['does not fit 64 bits', raw('18446744073709551616')], ['is 1e300', raw('1e300')], ['is 1e400', raw('1e400')], ['is true', true], ['is false', false], ['is an array', [now]], ['is an object', {}]])
    malformed(`${name} ${what}`, { [name]: value });
}
malformed('nbf is a number in quotes', { nbf: String(now) });
claim('iat is ten digits in quotes (.NET)', 'good', { iat: String(now - 10) });
claim('iat is twelve digits in quotes', 'good', { iat: String(now - 10).padStart(12, '0') });
claim('iat in quotes is 61 s ahead', 'token_not_yet_valid', { iat: String(now + 61) });
claim('iat in quotes is 60 s ahead', 'good', { iat: String(now + 60) });
for (const [what, iat] of [['thirteen digits', String(now * 1000)], ['thirteen digits with zeros', String(now).padStart(13, '0')], ['nothing', ''], ['a sign', `-${now}`], ['a plus', `+${now}`], ['a fraction', `${now}.0`], ['a blank before', ` ${now}`], ['a blank behind', `${now} `], ['hexadecimal', '0x6ab13b80'], ['an exponent', '1e9'], ['a date', '2026-09-21'], ['a zero byte', `${now}\0`], ['digits of another script', '١٧٩٠٠٠٠٠٠٠']])
  malformed(`iat in quotes holds ${what}`, { iat });
for (const leeway of [0, 300]) {
  const rules = { leeway };
  claim(`leeway ${leeway} s: exp at its last second`, 'good', { exp: now - leeway + 1 }, rules);
  claim(`leeway ${leeway} s: exp a second before`, 'token_expired', { exp: now - leeway }, rules);
  for (const name of ['nbf', 'iat']) {
    claim(`leeway ${leeway} s: ${name} at its last second`, 'good', { [name]: now + leeway }, rules);
    claim(`leeway ${leeway} s: ${name} a second later`, 'token_not_yet_valid', { [name]: now + leeway + 1 }, rules);
  }
}
claim('late: at exp + 59 s', 'good', {}, undefined, { now: now + 659 });
claim('late: at exp + 60 s', 'token_expired', {}, undefined, { now: now + 660 });
claim('early: at iat - 60 s', 'good', {}, undefined, { now: now - 70 });
claim('early: at iat - 61 s', 'token_not_yet_valid', {}, undefined, { now: now - 71 });
claim('in the year 2255', 'good', { exp: 253402300799 }, undefined, { now: 9000000000 });
claim('in the year 2255, of today', 'token_expired', {}, undefined, { now: 9000000000 });

const refusedBound = 'token_type_mismatch';
for (const [what, cnf] of [['of DPoP', { jkt: '0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I' }], ['of mTLS', { 'x5t#S256': 'bwcK0esc3ACC3DB2Y5_lESsXE8o9ltc05O89jdN-dg2' }], ['of another kind', { jwk: {} }], ['that is empty', {}], ['of another type', 'x']]) {
  claim(`a cnf ${what}`, refusedBound, { cnf });
  claim(`a cnf ${what}, where bound tokens are accepted`, 'good', { cnf }, { accept_bound: true });
}
claim('no cnf, where bound tokens are accepted', 'good', {}, { accept_bound: true });

const missing = 'claim_missing';
for (const [what, required, changed, expected] of [
  ['there', ['sub'], {}, 'good'], ['not there', ['email'], {}, missing], ['null', ['email'], { email: null }, missing], ['false', ['email'], { email: false }, 'good'], ['0', ['email'], { email: 0 }, 'good'],
  ['an empty string', ['email'], { email: '' }, 'good'], ['an empty array', ['email'], { email: [] }, 'good'], ['an empty object', ['email'], { email: {} }, 'good'],
  ['one of two', ['sub', 'email'], {}, missing], ['both of two', ['sub', 'email'], { email: 'a@b' }, 'good'], ['in other letters', ['Email'], { email: 'a@b' }, missing], ['nbf', ['nbf'], {}, missing], ['iat', ['iat'], {}, 'good'],
  ['a URL', ['https://example.com/roles'], { 'https://example.com/roles': [] }, 'good'], ['a URL that is not there', ['https://example.com/roles'], { https: { example: 1 } }, missing],
  ['by a path', ['/realm_access/roles'], { realm_access: { roles: [] } }, 'good'], ['by a path that ends early', ['/realm_access/roles'], { realm_access: {} }, missing], ['by a path to null', ['/realm_access/roles'], { realm_access: { roles: null } }, missing],
  ['by a path whose first step is missing', ['/realm_access/roles'], {}, missing], ['by a path through a string', ['/realm_access/roles'], { realm_access: 'roles' }, missing],
  ['of a name with a slash, by a path', ['/a~1b/c'], { 'a/b': { c: 1 } }, 'good'], ['of a name with a tilde, by a path', ['/a~0b'], { 'a~b': 1 }, 'good'], ['~01 is ~1 and no slash', ['/a~01b'], { 'a~1b': 1 }, 'good'], ['~01 is no slash', ['/a~01b'], { 'a/b': 1 }, missing],
  ['an element of an array, by a path', ['/groups/1'], { groups: ['a', 'b'] }, 'good'], ['an element past the end, by a path', ['/groups/2'], { groups: ['a', 'b'] }, missing], ['an element with a leading zero, by a path', ['/groups/01'], { groups: ['a', 'b'] }, missing],
  ['the element after the last, by a path', ['/groups/-'], { groups: ['a', 'b'] }, missing], ['a negative element, by a path', ['/groups/-1'], { groups: ['a', 'b'] }, missing], ['a number as a name, by a path', ['/groups/1'], { groups: { 1: 'x' } }, 'good'],
  ['a dot is no step', ['realm_access.roles'], { realm_access: { roles: [] } }, missing], ['a name with a dot', ['realm_access.roles'], { 'realm_access.roles': 1 }, 'good']])
  claim(`a required claim ${what}`, expected, changed, { required_claims: required });
for (const [what, values, changed, expected] of [
  ['the only one', [['token_use', ['access']]], { token_use: 'access' }, 'good'], ['the second of two', [['token_use', ['id', 'access']]], { token_use: 'access' }, 'good'], ['another', [['token_use', ['access']]], { token_use: 'id' }, missing],
  ['not there', [['token_use', ['access']]], {}, missing], ['null', [['token_use', ['access']]], { token_use: null }, missing], ['in capitals', [['token_use', ['access']]], { token_use: 'ACCESS' }, missing], ['its beginning', [['token_use', ['access']]], { token_use: 'acc' }, missing],
  ['with more behind it', [['token_use', ['access']]], { token_use: 'access id' }, missing], ['empty', [['token_use', ['access']]], { token_use: '' }, missing], ['a number', [['n', ['1']]], { n: 1 }, missing], ['true', [['b', ['true']]], { b: true }, missing],
  ['a member of an array', [['groups', ['admins']]], { groups: ['users', 'admins'] }, 'good'], ['no member of an array', [['groups', ['admins']]], { groups: ['users'] }, missing], ['an empty array', [['groups', ['admins']]], { groups: [] }, missing],
  ['a member of an array of many types', [['groups', ['admins']]], { groups: [1, null, 'admins'] }, 'good'], ['an array in an array', [['groups', ['admins']]], { groups: [['admins']] }, missing], ['a name of an object', [['groups', ['admins']]], { groups: { admins: 1 } }, missing],
  ['both of two', [['token_use', ['access']], ['tenant', ['t1']]], { token_use: 'access', tenant: 't1' }, 'good'], ['one of two', [['token_use', ['access']], ['tenant', ['t1']]], { token_use: 'access', tenant: 't2' }, missing],
  ['by a path', [['/realm_access/roles', ['a']]], { realm_access: { roles: ['a'] } }, 'good'], ['by a path, another', [['/realm_access/roles', ['a']]], { realm_access: { roles: ['b'] } }, missing], ['of sub', [['sub', ['user-1']]], {}, 'good'], ['of another sub', [['sub', ['user-2']]], {}, missing]])
  claim(`a required value: ${what}`, expected, changed, { required_values: values });

const profile = { rfc9068: true };
claim('RFC 9068: all of it', 'good', {}, profile);
for (const name of ['sub', 'client_id', 'iat', 'jti', 'iss', 'aud', 'exp']) {
  claim(`RFC 9068: no ${name}`, missing, { [name]: undefined }, profile);
  claim(`RFC 9068: ${name} is null`, missing, { [name]: null }, profile);
}
claim('RFC 9068: application/at+jwt', 'good', {}, profile, { header: { typ: 'application/at+jwt' } });
for (const typ of ['JWT', undefined, null, 'id+jwt']) claim(`RFC 9068: typ ${typ}`, refusedType, {}, profile, { header: { typ } });
claim('RFC 9068 goes over types', refusedType, {}, { rfc9068: true, types: ['JWT'] }, { header: { typ: 'JWT' } });
claim('RFC 9068 goes over types, and at+jwt is good', 'good', {}, { rfc9068: true, types: ['JWT'] });

const spiffe = { issuer: '', trust_domain: 'example.org' };
const svid = { iss: undefined, sub: 'spiffe://example.org/ns/prod/sa/orders' };
for (const typ of ['JWT', 'JOSE', 'jose', 'application/jose', undefined]) claim(`a trust domain: typ ${typ}`, 'good', svid, spiffe, { header: { typ } });
claim('a trust domain: typ of another kind', refusedType, svid, spiffe, { header: { typ: 'id+jwt' } });
claim('a trust domain: iss is there and not looked at', 'good', { ...svid, iss: 'https://anybody.example' }, spiffe);
malformed('a trust domain: iss is a number', { ...svid, iss: 1 }, spiffe);
claim('a trust domain: no sub', [missing, 'issuer_mismatch'], { ...svid, sub: undefined }, spiffe);
claim('a trust domain: no aud', missing, { ...svid, aud: undefined }, spiffe);
claim('a trust domain: no exp', missing, { ...svid, exp: undefined }, spiffe);
claim('a trust domain: another aud', bound, { ...svid, aud: 'x' }, spiffe);
for (const sub of ['spiffe://example.org', 'spiffe://example.orgevil/ns', 'spiffe://example.com/ns', 'spiffe://EXAMPLE.ORG/ns', 'SPIFFE://example.org/ns', 'https://example.org/ns', 'xspiffe://example.org/ns', ' spiffe://example.org/ns', 'spiffe:/example.org/ns', '/example.org/ns', ''])
  claim(`a trust domain: sub ${JSON.stringify(sub)}`, 'issuer_mismatch', { ...svid, sub }, spiffe);
claim('without a trust domain JOSE is no type', refusedType, {}, undefined, { header: { typ: 'JOSE' } });

for (const [what, changed] of [
  ['a scope of objects', { scope: { a: 1 } }], ['numbers as scope', { scope: 5 }], ['roles of every type', { roles: [1, null, {}, 'a'] }], ['azp a number', { azp: 5 }], ['client_id a number', { client_id: 7 }], ['email false', { email: false }],
  ['auth_time 1e400 in quotes', { auth_time: '1e400' }], ['name null', { name: null }], ['large whole numbers', { n: raw('123456789012345678901234567890') }], ['every type', { a: [true, false, null, 1, -1, 1.5, 'x', [], {}] }], ['names of claims that hold dots and slashes', { 'a.b': 1, '/a': 2, 'a/b': 3, '~': 4 }],
  ['events', { events: { 'http://schemas.openid.net/event/backchannel-logout': {} } }]])
  claim(`no other type is judged: ${what}`, 'good', changed);

// ---- grants ----

const grant = (name, changed, grants, denies, rules) => add(`grants: ${name}`, 'good', { claims: { scope: undefined, ...changed }, rules, grants, denies });
grant('a string of scopes is a list', { scope: 'a b  c ' }, { scopes: ['a', 'b', 'c'] }, { scopes: ['a b', '', 'a b  c ', 'd', 'A'], roles: ['a'], permissions: ['a'] });
grant('only U+0020 parts scopes', { scope: 'a\tb\nc\u00a0d,e' }, { scopes: ['a\tb\nc\u00a0d,e'] }, { scopes: ['a', 'b', 'd', 'e'] });
grant('an array of scopes holds whole names', { scope: ['a b', 'c', ''] }, { scopes: ['a b', 'c'] }, { scopes: ['a', 'b', ''] });
grant('scp where there is no scope', { scp: 'a b' }, { scopes: ['a', 'b'] }, { scopes: ['c'] });
grant('scp as an array', { scp: ['a', 'b'] }, { scopes: ['a', 'b'] }, { scopes: ['a b'] });
grant('the first that is there: scope before scp', { scope: 'a', scp: 'b' }, { scopes: ['a'] }, { scopes: ['b'] });
grant('no scopes', {}, {}, { scopes: ['a', ''] });
grant('an empty scope', { scope: '' }, {}, { scopes: ['', ' '] });
for (const [what, value] of [['a number', 1], ['true', true], ['an object', { a: true }]])
  grant(`${what} grants nothing`, { scope: value, roles: value, permissions: value }, {}, { scopes: ['a', '1', 'true', ''], roles: ['a', '1', 'true', ''], permissions: ['a', '1', 'true', ''] });
grant('only the strings of an array count', { scope: [1, null, ['b'], { c: 1 }, 'a'] }, { scopes: ['a'] }, { scopes: ['1', 'b', 'c', 'null'] });
grant('a string of roles is one name', { roles: 'Order Reader', permissions: 'a b' }, { roles: ['Order Reader'], permissions: ['a b'] }, { roles: ['Order', 'Reader', ''], permissions: ['a', 'b'] });
grant('a string of roles is a list where it is asked for', { roles: 'a b', permissions: 'c d' }, { roles: ['a', 'b'], permissions: ['c', 'd'] }, { roles: ['a b', ''], permissions: ['c d'] }, { split_roles: true });
grant('an array of roles holds whole names, also where strings are lists', { roles: ['a b', 'c'] }, { roles: ['a b', 'c'] }, { roles: ['a', 'b'] }, { split_roles: true });
grant('an empty string of roles is no name', { roles: '', permissions: '' }, {}, { roles: [''], permissions: [''] });
grant('roles by a path', { realm_access: { roles: ['a'] } }, { roles: ['a'] }, { roles: ['b'] }, { role_claims: ['/realm_access/roles'] });
grant('roles of a claim with a colon', { 'cognito:groups': ['a'] }, { roles: ['a'] }, { roles: ['b'] }, { role_claims: ['cognito:groups'] });
grant('roles of a claim that is a URL', { 'https://example.com/roles': ['a'] }, { roles: ['a'] }, { roles: ['b'] }, { role_claims: ['roles', 'https://example.com/roles'] });
grant('permissions', { permissions: ['orders:read'] }, { permissions: ['orders:read'] }, { permissions: ['orders'], scopes: ['orders:read'], roles: ['orders:read'] });

// ---- several issuers ----

const a = 'https://a.example/', b = 'https://b.example/';
const urlA = 'https://a.example/keys', urlB = 'https://b.example/keys';
const both = {
  several: [{ issuer: a, audience: ['api-a'], jwks_url: urlA }, { issuer: b, audience: ['api-b'], jwks_url: urlB, types: ['at+jwt'] }],
  sets: { [urlA]: 'issuer_a', [urlB]: 'issuer_b' },
};
const of = (name, expected, spec, more = both) => add(`several issuers: ${name}`, expected, { ...more, ...spec, header: { kid: 'k', ...spec.header } });
const byA = { iss: a, aud: 'api-a' }, byB = { iss: b, aud: 'api-b' };
of('a token of the first', 'good', { claims: byA });
of('a token of the second', 'good', { key: 'ed25519_b', claims: byB });
of('a token of the first by a key that only it has', 'good', { alg: 'ES256', key: 'p256', header: { kid: 'only-a' }, claims: byA });
of('a token of the second by a key that only it has', 'good', { key: 'ed25519_c', header: { kid: 'only-b' }, claims: byB });
of("a token of the first by the second's key of the same kid", 'bad_signature', { key: 'ed25519_b', claims: byA });
of("a token of the second by the first's key of the same kid", 'bad_signature', { claims: byB });
of("a token of the first by the second's key of another kid", 'key_not_found', { key: 'ed25519_c', header: { kid: 'only-b' }, claims: byA, fetches: 1 });
of('neither', 'issuer_mismatch', { claims: { iss: 'https://c.example/', aud: 'api-a' } });
of('neither, and the kid is unknown', ['issuer_mismatch', 'key_not_found'], { header: { kid: 'x' }, claims: { iss: 'https://c.example/', aud: 'api-a' } });
of('without a slash', 'issuer_mismatch', { claims: { ...byA, iss: 'https://a.example' } });
of('none', ['issuer_mismatch', 'claim_missing'], { claims: { ...byA, iss: undefined } });
of('null', ['issuer_mismatch', 'claim_missing'], { claims: { ...byA, iss: null } });
of('a number', 'malformed_token', { claims: { ...byA, iss: 1 } });
of('an array of both', 'malformed_token', { claims: { ...byA, iss: [a, b] } });
of('iss twice', 'malformed_token', { payloadText: `${json({ ...claims, ...byA }).slice(0, -1)},"iss":"${b}"}` });
of("the second's audience for the first", 'audience_mismatch', { claims: { ...byA, aud: 'api-b' } });
of("a type that only the first's rules take", 'good', { header: { typ: 'JWT' }, claims: byA });
of("a type that the second's rules do not take", 'token_type_mismatch', { key: 'ed25519_b', header: { typ: 'JWT' }, claims: byB });
of('the payload is no JSON', 'malformed_token', { payloadText: 'x' });
of('expired', 'token_expired', { claims: { ...byA, exp: now - 100 } });
const mixed = { several: [both.several[0], { trust_domain: 'example.org', audience: ['api-b'], jwks_url: urlB }], sets: both.sets };
of('beside a trust domain: by iss', 'good', { claims: byA }, mixed);
of('beside a trust domain: by sub', 'good', { key: 'ed25519_b', claims: { iss: undefined, sub: 'spiffe://example.org/x', aud: 'api-b' } }, mixed);
of("beside a trust domain: by sub, and the first's key", 'bad_signature', { claims: { iss: undefined, sub: 'spiffe://example.org/x', aud: 'api-b' } }, mixed);
of('beside a trust domain: another trust domain', 'issuer_mismatch', { claims: { iss: undefined, sub: 'spiffe://example.com/x', aud: 'api-b' } }, mixed);
const shared = { several: [both.several[0], { issuer: b, audience: ['api-b'], jwks_url: urlA }], sets: { [urlA]: 'issuer_a' } };
of('of one key set: the first', 'good', { claims: byA }, shared);
of('of one key set: the second', 'good', { claims: byB }, shared);
of('of one key set: the audience of the other', 'audience_mismatch', { claims: { ...byB, aud: 'api-a' } }, shared);
of('a list of one', 'good', { claims: byA }, { several: [both.several[0]], sets: { [urlA]: 'issuer_a' } });
of('a list of one: another issuer', 'issuer_mismatch', { claims: byB }, { several: [both.several[0]], sets: { [urlA]: 'issuer_a' } });
