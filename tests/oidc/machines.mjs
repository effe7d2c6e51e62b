// Clients without a person, for issuer.mjs: keys and certificates made by openssl, client_credentials with
// every way to authenticate, and the grants of RFC 7523 and RFC 8693, whose assertions jose verifies.

import { execFileSync } from 'node:child_process';
import { createPublicKey, createPrivateKey, randomUUID, X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { SignJWT, jwtVerify } from 'jose';

const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const TOKEN_EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';

// The pairs of clients that change them.
const TURNS = ['turn1', 'turn2', 'turn3'];

// In `directory`, beside the CA: KIND.pem is a private key in PKCS#8; client.crt is vouched for by the CA,
// self.crt is not; rsa.crt belongs to rsa.pem and ends in ten days.
export function makeKeys(directory) {
  const openssl = (...args) => execFileSync('openssl', args, { cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] });
  const rsa = (bits) => ['-algorithm', 'RSA', '-pkeyopt', `rsa_keygen_bits:${bits}`];
  const ec = (curve) => ['-algorithm', 'EC', '-pkeyopt', `ec_paramgen_curve:${curve}`];
  for (const [name, kind] of Object.entries({
    rsa: rsa(2048), next: rsa(2048), small: rsa(1024), p256: ec('P-256'), p384: ec('P-384'),
    ed25519: ['-algorithm', 'ED25519'], workload: ec('P-256'), client: ec('P-256'), self: ec('P-256'),
    turn1: ec('P-256'), turn2: rsa(2048), turn3: ec('P-384'),
  })) openssl('genpkey', ...kind, '-out', `${name}.pem`);
  openssl('rsa', '-in', 'rsa.pem', '-traditional', '-out', 'rsa.pkcs1.pem');
  openssl('ec', '-in', 'p256.pem', '-out', 'p256.sec1.pem');
  openssl('pkcs8', '-topk8', '-in', 'rsa.pem', '-passout', 'pass:secret', '-out', 'rsa.encrypted.pem');
  openssl('rsa', '-in', 'rsa.pem', '-traditional', '-aes128', '-passout', 'pass:secret', '-out', 'rsa.encrypted1.pem');
  const selfSigned = (name, days) => openssl('req', '-x509', '-key', `${name}.pem`, '-out', `${name}.crt`,
    '-days', String(days), '-subj', `/CN=zg-${name}`);
  selfSigned('self', 30);
  selfSigned('rsa', 10);
  for (const name of TURNS) selfSigned(name, 30);
  openssl('req', '-new', '-key', 'client.pem', '-out', 'client.csr', '-subj', '/CN=zg-client');
  writeFileSync(path.join(directory, 'client.extensions'), 'extendedKeyUsage=clientAuth\n');
  openssl('x509', '-req', '-in', 'client.csr', '-CA', 'ca.pem', '-CAkey', 'ca.key', '-CAcreateserial',
    '-days', '30', '-extfile', 'client.extensions', '-out', 'client.crt');
}

export function machines(directory) {
  const pem = (name) => readFileSync(path.join(directory, name));
  const jwk = (name, extra) => ({ ...createPublicKey(pem(`${name}.pem`)).export({ format: 'jwk' }), ...extra });
  const none = { redirect_uris: [], response_types: [], grant_types: ['client_credentials'] };
  const signing = (name, alg) => ({
    ...none, client_id: `zg-${name}`, token_endpoint_auth_method: 'private_key_jwt',
    token_endpoint_auth_signing_alg: alg, jwks: { keys: [jwk(name, { kid: name, use: 'sig' })] },
  });
  const x5c = (name) => [new X509Certificate(pem(`${name}.crt`)).raw.toString('base64')];
  const clients = [
    { ...none, client_id: 'zgmachine', client_secret: 's3cret', token_endpoint_auth_method: 'client_secret_basic' },
    signing('rsa', 'RS256'), signing('p256', 'ES256'), signing('p384', 'ES384'), signing('ed25519', 'EdDSA'),
    { ...none, client_id: 'zgtls', token_endpoint_auth_method: 'tls_client_auth', tls_client_auth_subject_dn: 'CN=zg-client' },
    {
      ...none, client_id: 'zgself', token_endpoint_auth_method: 'self_signed_tls_client_auth',
      jwks: { keys: [jwk('self', { x5c: x5c('self') })] },
    },
    { ...signing('rsa', 'PS256'), client_id: 'zg-ps' },
    { ...signing('workload', 'ES256'), client_id: 'zg-federated' },
    {
      ...none, client_id: 'zg-turns', token_endpoint_auth_method: 'private_key_jwt',
      jwks: { keys: TURNS.map((name) => jwk(name, { use: 'sig' })) },
    },
    {
      ...none, client_id: 'zgturns', token_endpoint_auth_method: 'self_signed_tls_client_auth',
      jwks: { keys: TURNS.map((name) => jwk(name, { x5c: x5c(name) })) },
    },
    { ...none, client_id: 'zgbearer', token_endpoint_auth_method: 'none', grant_types: [JWT_BEARER] },
    { ...none, client_id: 'zgexchange', token_endpoint_auth_method: 'none', grant_types: [TOKEN_EXCHANGE] },
    {
      redirect_uris: ['https://client.example/callback'], response_types: ['code'], client_id: 'zg-next',
      grant_types: ['authorization_code', 'refresh_token'], token_endpoint_auth_method: 'private_key_jwt',
      jwks: { keys: [jwk('next', { use: 'sig' })] },
    },
    {
      ...signing('next', 'RS256'), client_id: 'zg-signer', application_type: 'native',
      redirect_uris: ['http://127.0.0.1/'], response_types: ['code'],
      grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
    },
  ];
  const features = {
    clientCredentials: { enabled: true },
    mTLS: {
      enabled: true, tlsClientAuth: true, selfSignedTlsClientAuth: true,
      getCertificate: (ctx) => ctx.socket.getPeerX509Certificate?.(),
      certificateAuthorized: (ctx) => ctx.socket.authorized,
      certificateSubjectMatches: (ctx, _, expected) => ctx.socket.getPeerX509Certificate().subject === expected,
    },
  };
  const clientAuthMethods = ['none', 'client_secret_basic', 'client_secret_post', 'private_key_jwt',
    'tls_client_auth', 'self_signed_tls_client_auth'];

  const refuse = (ctx, description) => {
    ctx.status = 400;
    ctx.body = { error: 'invalid_grant', error_description: description };
  };
  const grant = async (provider, ctx, extra) => {
    const token = new provider.ClientCredentials({ client: ctx.oidc.client, scope: ctx.oidc.params.scope });
    ctx.body = { access_token: await token.save(), token_type: 'Bearer', expires_in: token.expiration, ...extra };
  };
  const register = (provider) => {
    // The next two answers are for tests that look at what was verified, or at nothing.
    provider.seen = [];
    provider.registerGrantType(JWT_BEARER, async (ctx) => {
      try {
        const { payload, protectedHeader } = await jwtVerify(ctx.oidc.params.assertion, createPublicKey(pem('rsa.pem')),
          { issuer: 'robot@project.example', audience: `${provider.issuer}/token`, requiredClaims: ['jti', 'iat', 'exp'] });
        provider.seen.push({ payload, header: protectedHeader });
      } catch (error) {
        return refuse(ctx, error.message);
      }
      return grant(provider, ctx, { refresh_token: 'unwanted' });
    }, ['assertion', 'scope']);
    provider.registerGrantType(TOKEN_EXCHANGE, async (ctx) => {
      const verified = async (token, type) => {
        if (type !== 'urn:ietf:params:oauth:token-type:jwt') throw new Error(`the type is ${type}`);
        const { payload } = await jwtVerify(token, createPublicKey(pem('workload.pem')), { audience: 'exchange' });
        return payload;
      };
      const { params } = ctx.oidc;
      try {
        const payload = await verified(params.subject_token, params.subject_token_type);
        const actor = params.actor_token && await verified(params.actor_token, params.actor_token_type);
        provider.seen.push({ payload, actor });
      } catch (error) {
        return refuse(ctx, error.message);
      }
      return grant(provider, ctx, { issued_token_type: 'urn:ietf:params:oauth:token-type:access_token' });
    }, ['subject_token', 'subject_token_type', 'requested_token_type', 'actor_token', 'actor_token_type', 'audience', 'scope']);
    provider.use(async (ctx, next) => {
      // A token of the platform: kubelet's, GitHub's.
      if (ctx.path === '/_mint') {
        const { life = 600, key = 'workload', aud = 'exchange', sub = 'workload', iss = sub } = ctx.query;
        const now = Math.floor(Date.now() / 1000);
        ctx.body = await new SignJWT({ sub, iss, aud, jti: randomUUID() })
          .setProtectedHeader({ alg: key === 'rsa' ? 'RS256' : 'ES256' })
          .setIssuedAt(now).setExpirationTime(now + Number(life)).sign(createPrivateKey(pem(`${key}.pem`)));
        return undefined;
      }
      // Google's two endpoints, which ask for no client.
      if (ctx.path === '/google/token' || ctx.path === '/google/impersonate') {
        const chunks = [];
        for await (const chunk of ctx.req) chunks.push(chunk);
        const text = Buffer.concat(chunks).toString();
        const answer = (status, body) => { ctx.status = status; ctx.body = body; };
        if (ctx.path === '/google/impersonate') {
          const { scope, lifetime } = JSON.parse(text);
          if (ctx.get('authorization') !== 'Bearer federated') return answer(401, { error: { code: 401, status: 'UNAUTHENTICATED', message: 'no' } });
          provider.seen.push({ scope, lifetime });
          return answer(200, { accessToken: 'impersonated', expireTime: new Date(Date.now() + 3600e3).toISOString() });
        }
        const form = Object.fromEntries(new URLSearchParams(text));
        try {
          if (form.grant_type === JWT_BEARER) {
            const { payload, protectedHeader } = await jwtVerify(form.assertion, createPublicKey(pem('rsa.pem')),
              { issuer: 'robot@project.iam.gserviceaccount.com', audience: `${provider.issuer}/google/token` });
            provider.seen.push({ payload, header: protectedHeader });
            return answer(200, { access_token: 'service', token_type: 'Bearer', expires_in: 3599 });
          }
          if (form.grant_type === TOKEN_EXCHANGE) {
            await jwtVerify(form.subject_token, createPublicKey(pem('workload.pem')), { audience: 'exchange' });
            provider.seen.push({ form: { ...form, subject_token: '…' } });
            return answer(200, { access_token: 'federated', issued_token_type: 'urn:ietf:params:oauth:token-type:access_token', token_type: 'Bearer', expires_in: 3599 });
          }
          if (form.refresh_token === 'user-token' && form.client_secret === 'user-secret') {
            return answer(200, { access_token: 'user', token_type: 'Bearer', expires_in: 3599 });
          }
          throw new Error('unknown');
        } catch (error) {
          return answer(400, { error: 'invalid_grant', error_description: error.message });
        }
      }
      if (ctx.path === '/_seen' || ctx.path === '/_proofs') {
        ctx.body = ctx.path === '/_seen' ? provider.seen : proofs;
        return undefined;
      }
      return next();
    });
  };
  // The client assertions whose signature was verified.
  const proofs = [];
  const configuration = {
    clientAuthMethods,
    assertJwtClientAuthClaimsAndHeader: (_, claims, header) => { proofs.push({ claims, header }); },
    enabledJWA: { clientAuthSigningAlgValues: ['RS256', 'PS256', 'ES256', 'ES384', 'EdDSA'] },
  };
  return { clients, features, configuration, register };
}
