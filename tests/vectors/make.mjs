// Makes keys.hpp: `node make.mjs > keys.hpp`. What it runs is explained in README.md.
import { execFileSync } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'vectors-'));
const file = (name) => path.join(folder, name);
const openssl = (...args) => execFileSync('openssl', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
const base64url = (bytes) => Buffer.from(bytes).toString('base64url');

const kinds = [
  { name: 'rsa', genpkey: ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:2048'], bits: 2048 },
  { name: 'rsa_e3', genpkey: ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:3072', '-pkeyopt', 'rsa_keygen_pubexp:3'], bits: 3072 },
  { name: 'rsa_1024', genpkey: ['-algorithm', 'RSA', '-pkeyopt', 'rsa_keygen_bits:1024'], bits: 1024 },
  { name: 'p256', genpkey: ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256'], bits: 256 },
  { name: 'p384', genpkey: ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-384'], bits: 384 },
  { name: 'p521', genpkey: ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-521'], bits: 521 },
  { name: 'secp256k1', genpkey: ['-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:secp256k1'], bits: 256 },
  { name: 'ed25519', genpkey: ['-algorithm', 'ED25519'], bits: 256 },
  { name: 'ed448', genpkey: ['-algorithm', 'ED448'], bits: 456 },
];

// RFC 7638 section 3.2, RFC 8037 section 2: the required members, sorted, no blanks.
function thumbprint(jwk) {
  const names = { RSA: ['e', 'kty', 'n'], EC: ['crv', 'kty', 'x', 'y'], OKP: ['crv', 'kty', 'x'] }[jwk.kty];
  const text = JSON.stringify(Object.fromEntries(names.map((name) => [name, jwk[name]])));
  return base64url(crypto.createHash('sha256').update(text).digest());
}

function token(alg, key) {
  const input = `${base64url(JSON.stringify({ alg }))}.${base64url('{"sub":"vector"}')}`;
  const hash = alg === 'EdDSA' ? null : `sha${alg.slice(2, 5)}`;
  const options = { key };
  if (alg.startsWith('ES')) options.dsaEncoding = 'ieee-p1363';
  if (alg.startsWith('PS')) Object.assign(options, { padding: crypto.constants.RSA_PKCS1_PSS_PADDING, saltLength: crypto.constants.RSA_PSS_SALTLEN_DIGEST });
  return `${input}.${base64url(crypto.sign(hash, Buffer.from(input), options))}`;
}

const out = [];
const constant = (name, text) => {
  const pieces = [];
  const flat = text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n\n').split('\n').filter((line) => line !== '');
  for (const line of flat) for (let i = 0; i < line.length; i += 110) pieces.push(line.slice(i, i + 110));
  // A cut must not part a backslash from what it escapes.
  for (let i = 0; i + 1 < pieces.length; ++i) {
    if (/(^|[^\\])(\\\\)*\\$/.test(pieces[i])) { pieces[i + 1] = '\\' + pieces[i + 1]; pieces[i] = pieces[i].slice(0, -1); }
  }
  out.push(`inline constexpr std::string_view ${name} =\n${pieces.map((piece) => `    "${piece}"`).join('\n')};`);
};

function generate(kind) {
  openssl('genpkey', ...kind.genpkey, '-out', file('key.pem'));
  openssl('pkey', '-in', file('key.pem'), '-pubout', '-out', file('pub.pem'));
  const secret = crypto.createPrivateKey(fs.readFileSync(file('key.pem')));
  const pem = fs.readFileSync(file('pub.pem'), 'utf8');
  return { secret, pem, jwk: crypto.createPublicKey(pem).export({ format: 'jwk' }) };
}

const message = 'signed by the openssl command';
fs.writeFileSync(file('message'), message);
constant('message', message);

for (const kind of kinds) {
  const { secret, pem, jwk } = generate(kind);
  out.push(`\n// ${kind.name}`);
  constant(`${kind.name}_pem`, pem);
  constant(`${kind.name}_jwk`, JSON.stringify(jwk));
  constant(`${kind.name}_thumbprint`, thumbprint(jwk));
  out.push(`inline constexpr int ${kind.name}_bits = ${kind.bits};`);
  const edwards = kind.name.startsWith('ed');
  const signed = edwards
    ? execFileSync('openssl', ['pkeyutl', '-sign', '-rawin', '-inkey', file('key.pem'), '-in', file('message')])
    : execFileSync('openssl', ['dgst', '-sha256', '-sign', file('key.pem'), file('message')]);
  constant(`${kind.name}_openssl_signature`, base64url(signed));
  const algs = { RSA: ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512'], OKP: ['EdDSA'] }[jwk.kty] ?? [{ 'P-256': 'ES256', 'P-384': 'ES384', 'P-521': 'ES512', secp256k1: 'ES256K' }[jwk.crv]];
  if (kind.name === 'rsa' || jwk.kty !== 'RSA') {
    for (const alg of algs) constant(`${kind.name}_${alg.toLowerCase()}_token`, token(alg, secret));
  }
}

// Keys with a coordinate that starts with a zero byte, which some providers drop.
for (const [name, kind] of [['p256', kinds[3]], ['p521', kinds[5]]]) {
  for (const coordinate of ['x', 'y']) {
    let made;
    do made = generate(kind); while (Buffer.from(made.jwk[coordinate], 'base64url')[0] !== 0);
    let bytes = Buffer.from(made.jwk[coordinate], 'base64url');
    while (bytes[0] === 0) bytes = bytes.subarray(1);
    out.push(`\n// ${name} with a zero at the start of ${coordinate}`);
    constant(`${name}_zero_${coordinate}_jwk`, JSON.stringify(made.jwk));
    constant(`${name}_zero_${coordinate}_dropped_jwk`, JSON.stringify({ ...made.jwk, [coordinate]: base64url(bytes) }));
    constant(`${name}_zero_${coordinate}_pem`, made.pem);
    constant(`${name}_zero_${coordinate}_thumbprint`, thumbprint(made.jwk));
  }
}

// A private key as somebody might publish it by mistake.
{
  const { secret } = generate(kinds[0]);
  out.push('\n// a private key');
  constant('rsa_private_jwk', JSON.stringify(secret.export({ format: 'jwk' })));
  out.push('\n// another private key');
  constant('ed25519_private_jwk', JSON.stringify(generate(kinds.find((kind) => kind.name === 'ed25519')).secret.export({ format: 'jwk' })));
}
fs.rmSync(folder, { recursive: true });

console.log(`// Made by make.mjs (${openssl('version').split(' ').slice(0, 2).join(' ')}, node ${process.version}); see README.md. Do not edit.
#ifndef AXIOMS_JWKS_TESTS_VECTORS_KEYS_HPP
#define AXIOMS_JWKS_TESTS_VECTORS_KEYS_HPP

#include <string_view>

namespace vectors {

${out.join('\n')}

}  // namespace vectors

#endif`);
