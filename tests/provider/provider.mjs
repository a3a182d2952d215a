// npm's oidc-provider on loopback, over https, told by provider.cpp what to publish.
//
//   node provider.mjs CERTIFICATE_FILE KEY_FILE PORT
//
// PORT 0 is one of the system's choice. A command a line on stdin, one line of JSON on stdout for each; the first
// line, without a command, says the port. It ends when stdin does. A key is made when its kid is first named.
//   publish KID:ALG...   the key set is these keys
//   sign JSON            {"kid", "header", "claims"}: a token that jose signs with that key, published or not
//   mode MODE            up; unavailable: every request gets a 503; hang: no request is answered; down: nobody listens
//   requests             how many there were so far for the metadata and for the key set
import { readFileSync } from 'node:fs';
import * as https from 'node:https';
import * as readline from 'node:readline';

// Advice for production, which the provider gives whenever it starts. stdout is for answers, and errors go to stderr.
console.log = console.info = console.warn = () => {};
const { CompactSign, exportJWK, generateKeyPair } = await import('jose');
const { Provider } = await import('oidc-provider');

const [certificate, key, port] = process.argv.slice(2);
const audience = 'https://api.example.com';
const keys = new Map(); // by kid: private JWKs
let published = []; // kids
let mode = 'up';
let issuer;
let provider;
const requests = { metadata: 0, keys: 0 };

async function keyFor(kid, alg) {
  if (!keys.has(kid)) {
    const { privateKey } = await generateKeyPair(alg, { extractable: true });
    keys.set(kid, { ...(await exportJWK(privateKey)), kid, alg, use: 'sig' });
  }
  return keys.get(kid);
}

// Its keys are those that it is made with, so a rotation is another provider under the same name.
function makeProvider() {
  const made = new Provider(issuer, {
    jwks: { keys: published.map((kid) => keys.get(kid)) },
    clients: [{
      client_id: 'service', client_secret: 'secret', token_endpoint_auth_method: 'client_secret_post',
      grant_types: ['client_credentials'], redirect_uris: [], response_types: [],
      id_token_signed_response_alg: keys.get(published[0]).alg, // there are none, but it must be possible
    }],
    scopes: ['orders:read'],
    ttl: { ClientCredentials: 86400 },
    clientAuthMethods: ['client_secret_post'],
    cookies: { keys: ['unused'] },
    features: {
      devInteractions: { enabled: false },
      clientCredentials: { enabled: true },
      resourceIndicators: {
        enabled: true,
        // The path of the resource is the kid of the key that signs.
        getResourceServerInfo: (ctx, resource) => {
          const kid = new URL(resource).pathname.slice(1);
          return {
            audience, scope: 'orders:read', accessTokenFormat: 'jwt', jwt: { sign: { kid, alg: keys.get(kid).alg } },
          };
        },
      },
    },
  });
  made.on('server_error', (ctx, error) => console.error(error));
  return made.callback();
}

const server = https.createServer({ cert: readFileSync(certificate), key: readFileSync(key) }, (request, response) => {
  if (request.url.startsWith('/.well-known/')) requests.metadata += 1;
  if (request.url === '/jwks') requests.keys += 1;
  if (mode === 'hang') return;
  if (mode === 'up') provider(request, response);
  else response.writeHead(503).end();
});
const listen = (where) => new Promise((done, failed) => {
  server.once('error', failed).listen(where, '127.0.0.1', () => done(server.address().port));
});
const close = () => new Promise((done) => {
  server.close(done);
  server.closeAllConnections();
});

const commands = {
  async publish(list) {
    const pairs = list.split(' ').map((pair) => pair.split(':'));
    for (const [kid, alg] of pairs) await keyFor(kid, alg);
    published = pairs.map(([kid]) => kid);
    provider = makeProvider();
  },
  async sign(text) {
    const { kid, header, claims } = JSON.parse(text);
    const { use, alg, ...bare } = await keyFor(kid, header.alg);
    const signer = new CompactSign(new TextEncoder().encode(JSON.stringify(claims))).setProtectedHeader(header);
    return { token: await signer.sign({ ...bare, alg: header.alg }) };
  },
  async mode(wanted) {
    if (mode === 'down') await listen(new URL(issuer).port);
    mode = wanted;
    if (mode === 'up') server.closeAllConnections(); // what hung
    if (mode === 'down') await close();
  },
  async requests() {
    return requests;
  },
};

const answer = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);
const listening = await listen(Number(port));
issuer = `https://127.0.0.1:${listening}`;
answer({ port: listening });
for await (const line of readline.createInterface({ input: process.stdin })) {
  const space = `${line} `.indexOf(' ');
  try {
    answer({ ...(await commands[line.slice(0, space)](line.slice(space + 1))) });
  } catch (error) {
    answer({ error: String(error.stack) });
  }
}
process.exit(0);
