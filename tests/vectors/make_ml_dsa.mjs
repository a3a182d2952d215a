// Makes ml_dsa.hpp: `node make_ml_dsa.mjs > ml_dsa.hpp`, with node 24.6 or later. What it makes is explained in README.md.
import crypto from 'node:crypto';

const base64url = (bytes) => Buffer.from(bytes).toString('base64url');

const out = [];
const constant = (name, text) => {
  const lines = text.split(/(?<=\n)/).flatMap((line) => line.match(/[^\n]{1,110}\n?|\n/g));
  const literals = lines.map((line) => `    "${line.replaceAll('"', '\\"').replace('\n', '\\n')}"`);
  out.push(`inline constexpr std::string_view ${name} =\n${literals.join('\n')};`);
};

for (const alg of ['ML-DSA-44', 'ML-DSA-65', 'ML-DSA-87']) {
  const { publicKey, privateKey } = crypto.generateKeyPairSync(alg.toLowerCase());
  const { kty, pub } = publicKey.export({ format: 'jwk' });
  const name = alg.toLowerCase().replaceAll('-', '_');
  const input = `${base64url(JSON.stringify({ alg }))}.${base64url('{"sub":"vector"}')}`;
  out.push(`\n// ${alg}`);
  constant(`${name}_jwk`, JSON.stringify({ kty, alg, pub }));
  constant(`${name}_pem`, publicKey.export({ type: 'spki', format: 'pem' }));
  constant(`${name}_thumbprint`, base64url(crypto.createHash('sha256').update(JSON.stringify({ alg, kty, pub })).digest()));
  constant(`${name}_token`, `${input}.${base64url(crypto.sign(null, Buffer.from(input), privateKey))}`);
}

console.log(`// Made by make_ml_dsa.mjs (node ${process.version}, OpenSSL ${process.versions.openssl}); see README.md. Do not edit.
#ifndef AXIOMS_JWKS_TESTS_VECTORS_ML_DSA_HPP
#define AXIOMS_JWKS_TESTS_VECTORS_ML_DSA_HPP

#include <string_view>

namespace vectors {
${out.join('\n')}

}  // namespace vectors

#endif`);
