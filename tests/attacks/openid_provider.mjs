// A certified OpenID provider (https://openid.net/certification/, package oidc-provider) on loopback.
//
// One JSON line on stdin starts it: { "port", "keys" (private JWKs, the first one signs), "people": { login: claims } }.
// Each further line { "keys" } replaces its keys, as a rotation does. Every line is answered by one on stdout.
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

// Its notices go where nobody reads answers.
console.info = console.error;
const { default: Provider } = await import(
  new URL('../../node_modules/oidc-provider/lib/index.js', import.meta.url).href
);

const LIFETIME_SECONDS = 3600;
// What each API that the provider issues access tokens for is called in `aud`, and what may be asked for there.
const APIS = {
  'urn:connect-broker': { audience: 'connect-broker', scope: 'openid' },
  'urn:connect-broker:machines': { audience: 'connect-broker-machines', scope: 'accounts:read sessions:write' },
  'urn:another-api': { audience: 'another-api', scope: 'openid' },
};

function provide({ issuer, keys, people }) {
  return new Provider(issuer, {
    jwks: { keys },
    clients: [
      {
        client_id: 'page',
        application_type: 'native',
        token_endpoint_auth_method: 'none',
        grant_types: ['authorization_code', 'refresh_token'],
        redirect_uris: ['http://127.0.0.1/signed-in'],
      },
      {
        client_id: 'machine',
        client_secret: 'demo-machine-secret',
        grant_types: ['client_credentials'],
        redirect_uris: [],
        response_types: [],
      },
    ],
    cookies: { keys: ['demo-cookie-key'] },
    pkce: { required: () => true },
    ttl: { AccessToken: LIFETIME_SECONDS, ClientCredentials: LIFETIME_SECONDS },
    findAccount: (_context, login) => ({ accountId: login, claims: () => ({ sub: login }) }),
    extraTokenClaims: (_context, token) => people[token.accountId],
    issueRefreshToken: () => true,
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: true },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_context, resource) => ({
          ...APIS[resource],
          accessTokenFormat: 'jwt',
          accessTokenTTL: LIFETIME_SECONDS,
          jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
  });
}

let serve;
let settings = {};
const server = createServer((request, response) => serve(request, response));

for await (const line of createInterface({ input: process.stdin })) {
  settings = { ...settings, ...JSON.parse(line) };
  settings.issuer = `http://127.0.0.1:${settings.port}`;
  serve = provide(settings).callback();
  if (!server.listening) {
    await new Promise((listening) => server.listen(settings.port, '127.0.0.1', listening));
  }
  process.stdout.write(`${JSON.stringify({ issuer: settings.issuer })}\n`);
}
server.close();
server.closeAllConnections();
