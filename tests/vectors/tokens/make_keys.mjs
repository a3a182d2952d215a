// Makes private_keys.json: `node make_keys.mjs > private_keys.json`. Only needed when a kind of key is added; then every token changes.
import crypto from 'node:crypto';

const kinds = {
  rsa: ['rsa', { modulusLength: 2048 }],
  rsa_other: ['rsa', { modulusLength: 2048 }],
  p256: ['ec', { namedCurve: 'P-256' }],
  p256_other: ['ec', { namedCurve: 'P-256' }],
  p384: ['ec', { namedCurve: 'P-384' }],
  p521: ['ec', { namedCurve: 'P-521' }],
  secp256k1: ['ec', { namedCurve: 'secp256k1' }],
  ed25519: ['ed25519'],
  ed25519_b: ['ed25519'],
  ed25519_c: ['ed25519'],
  ed25519_d: ['ed25519'],
  ed25519_e: ['ed25519'],
  ed448: ['ed448'],
};
const keys = {};
for (const [name, kind] of Object.entries(kinds)) keys[name] = crypto.generateKeyPairSync(...kind).privateKey.export({ format: 'jwk' });
process.stdout.write(JSON.stringify(keys, null, 1) + '\n');
