// A certified authorization server (npm oidc-provider) as a test peer, over HTTP and HTTPS.
//
//   node issuer.mjs DIRECTORY
//
// DIRECTORY receives the test CA, ca.pem. When both ports listen, one line of JSON on stdout
// says where: {"http": URL, "https": URL, "ca": PATH}. It ends when its stdin is closed, so
// that it cannot outlive the test that started it.
//
// From the environment: ACCESS_TOKEN_TTL (5) and REFRESH_TOKEN_TTL (3600) in seconds; MACHINES (0): 1 adds
// the clients of machines.mjs; ROTATE (1): 0 keeps one refresh token for ever. With rotation, reuse of a replaced refresh token
// revokes the whole grant.
//
// Beside the provider's own endpoints, POST /_seed?client=ID gives a first refresh token
// without a browser. Clients without a person are in machines.mjs.

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import path from 'node:path';
import Provider from 'oidc-provider';
import { machines, makeKeys } from './machines.mjs';

const directory = process.argv[2];
if (!directory) throw new Error('usage: node issuer.mjs DIRECTORY');
const number = (name, otherwise) => Number(process.env[name] ?? otherwise);

// Keys take a second, which most tests need not wait.
const MACHINES = number('MACHINES', 0) === 1;

const redirects = { redirect_uris: ['https://client.example/callback'], response_types: ['code'] };
const grants = { grant_types: ['authorization_code', 'refresh_token'] };
// The secret of zg holds every character that goes wrong when a client does not form-encode
// it before it builds the Basic pair (RFC 6749 2.3.1).
const clients = [
  { client_id: 'zg', client_secret: 's3cret+/%: &=', token_endpoint_auth_method: 'client_secret_basic' },
  { client_id: 'zgpost', client_secret: 'p0st', token_endpoint_auth_method: 'client_secret_post' },
  { client_id: 'zgpub', token_endpoint_auth_method: 'none' },
].map((client) => ({ ...client, ...grants, ...redirects }));
// For logins: a native app (RFC 8252), whose redirect may have any port.
clients.push({
  client_id: 'zglogin', token_endpoint_auth_method: 'none', application_type: 'native',
  redirect_uris: ['http://127.0.0.1/'], response_types: ['code'],
  grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
});

function provider(issuer, mtls) {
  const others = MACHINES ? machines(directory) : { clients: [], features: {}, register() {} };
  const it = new Provider(issuer, {
    clients: [...clients, ...others.clients],
    ...others.configuration,
    discovery: mtls && { mtls_endpoint_aliases: { token_endpoint: `${mtls}/token` } },
    scopes: ['openid', 'offline_access', 'api'],
    features: {
      // Its own pages for login and consent, which take any user.
      devInteractions: { enabled: true },
      deviceFlow: { enabled: true },
      introspection: { enabled: true },
      revocation: { enabled: true },
      ...others.features,
    },
    ttl: {
      ClientCredentials: number('ACCESS_TOKEN_TTL', 5),
      AccessToken: number('ACCESS_TOKEN_TTL', 5),
      RefreshToken: number('REFRESH_TOKEN_TTL', 3600),
      Grant: 86400,
      IdToken: 60,
    },
    rotateRefreshToken: () => number('ROTATE', 1) === 1,
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
    cookies: { keys: ['not a secret here'] },
  });
  others.register(it);
  it.use(async (ctx, next) => {
    if (ctx.path !== '/_seed') return next();
    const client = await it.Client.find(ctx.query.client);
    if (!client || ctx.method !== 'POST') return ctx.throw(400, 'POST /_seed?client=ID');
    const who = { accountId: 'alice', clientId: client.clientId };
    const scope = 'openid offline_access api';
    const grant = new it.Grant(who);
    grant.addOIDCScope(scope);
    const now = Math.floor(Date.now() / 1000);
    const token = new it.RefreshToken({
      ...who, client, scope, grantId: await grant.save(), gty: 'authorization_code',
      claims: {}, authTime: now, iiat: now, rotations: 0,
    });
    ctx.body = { refresh_token: await token.save() };
  });
  return it.callback();
}

// A CA and a certificate that it signs: a client that checks no more than the signature, or
// that trusts a leaf as if it were a CA, would not be noticed with a self-signed one.
function certificate() {
  const openssl = (...args) => execFileSync('openssl', args, { cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] });
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];
  openssl('req', '-x509', ...key, '-keyout', 'ca.key', '-out', 'ca.pem', '-days', '2', '-subj', '/CN=test CA',
    '-addext', 'keyUsage=critical,keyCertSign');
  openssl('req', ...key, '-keyout', 'server.key', '-out', 'server.csr', '-subj', '/CN=localhost');
  writeFileSync(path.join(directory, 'extensions'),
    'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n');
  openssl('x509', '-req', '-in', 'server.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial',
    '-days', '2', '-extfile', 'extensions', '-out', 'server.pem');
  const read = (name) => readFileSync(path.join(directory, name));
  return { key: read('server.key'), cert: read('server.pem') };
}

// The issuer's URL holds the port, so the port comes first and the provider second.
async function listen(server, url, mtls) {
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const issuer = url(server.address().port);
  let other;
  if (mtls) {
    await new Promise((resolve) => mtls.listen(0, '127.0.0.1', resolve));
    other = url(mtls.address().port);
  }
  const handler = provider(issuer, other);
  server.on('request', handler);
  mtls?.on('request', handler);
  return issuer;
}

const pair = certificate();
if (MACHINES) makeKeys(directory);
// Asks every client for a certificate, and takes also those that no CA vouches for (RFC 8705 section 2.2).
const mtls = https.createServer({ ...pair, requestCert: true, rejectUnauthorized: false,
  ca: readFileSync(path.join(directory, 'ca.pem')) });

const ready = {
  http: await listen(http.createServer(), (port) => `http://127.0.0.1:${port}`),
  https: await listen(https.createServer(pair), (port) => `https://localhost:${port}`, mtls),
  ca: path.resolve(directory, 'ca.pem'),
};
console.log(JSON.stringify(ready));
// The pages warn on stdout that they are for development, and the test reads one line of it.
process.stdout.on('error', () => {});
process.stdin.resume().on('end', () => process.exit(0));
