// For each issuer a token and a key set shaped as its own are, and the rules of a service that takes them. Names, ids and keys are made up.
import { createHash, createHmac } from 'node:crypto';

import { Rows, base64url, json, jwk, keySet, now, raw, sign } from './signing.mjs';

export const rows = new Rows();
const tenant = '11111111-2222-3333-4444-555555555555', guid = '66666666-7777-8888-9999-000000000000', user = 'f2b3a1c0-0f6e-4d55-9d7e-2f7d7a1f0a11';
const x5t = 'nOo3ZDrODXEK1jKWhXslHR_KXEg', x5c = ['MIIDBTCCAe2gAwIBAgIQ'];

/** The whole header (but for alg) and all claims: nothing is added. */
function issued(name, expected, { alg = 'RS256', key = 'rsa', header, claims, keys, rules, ...more }) {
  rows.add(name, expected, {
    alg, key, rules, headerText: json(header), payloadText: json(claims),
    jwks: keys ?? keySet(jwk(key, { kid: header.kid, use: 'sig', alg })), ...more,
  });
}
const times = (life = 3600) => ({ iat: now - 5, exp: now - 5 + life });

// Auth0
{
  const header = { alg: 'RS256', typ: 'JWT', kid: 'Nz3kLmT0pQwErTyUiOpAs' };
  const claims = {
    iss: 'https://acme.eu.auth0.com/', sub: 'auth0|5f7c8ec7c33c6c004bbafe82', aud: ['https://api.acme.example', 'https://acme.eu.auth0.com/userinfo'], ...times(86400),
    azp: 'my_client_id', scope: 'openid profile read:messages', permissions: ['read:messages', 'delete:messages'],
  };
  const keys = keySet(jwk('rsa', { use: 'sig', n: jwk('rsa').n, kid: header.kid, x5t: 'q1sJ2k', x5c, alg: 'RS256' }), jwk('rsa_other', { use: 'sig', kid: 'oLdEr', alg: 'RS256' }));
  const rules = { issuer: 'https://acme.eu.auth0.com/', audience: ['https://api.acme.example'] };
  const grants = { scopes: ['read:messages'], permissions: ['delete:messages'] };
  issued('Auth0: a user', 'good', { header, claims, keys, rules, grants });
  issued('Auth0: a machine', 'good', { header, claims: { ...claims, sub: 'my_client_id@clients', aud: 'https://api.acme.example', gty: 'client-credentials' }, keys, rules, grants });
  issued('Auth0: the RFC 9068 profile', 'good', {
    header: { ...header, typ: 'at+jwt' }, claims: { ...claims, azp: undefined, client_id: 'my_client_id', jti: 'KJH87sd6fKJSHDf' }, keys, rules: { ...rules, rfc9068: true }, grants,
  });
  issued('Auth0: the issuer without its slash in the rules', 'issuer_mismatch', { header, claims, keys, rules: { ...rules, issuer: 'https://acme.eu.auth0.com' } });
  const input = `${base64url(json({ alg: 'HS256', typ: 'JWT' }))}.${base64url(json(claims))}`;
  issued('Auth0: an API with HS256', 'unsupported_algorithm', { header, claims, keys, rules, token: `${input}.${createHmac('sha256', 'secret').update(input).digest('base64url')}` });
}
// Okta
{
  const header = { kid: 'sDk3-Qn0wTz9Vb1xY2', alg: 'RS256' };
  const claims = {
    ver: 1, jti: 'AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE', iss: 'https://acme.okta.com/oauth2/default', aud: 'api://default', ...times(), cid: '0oabucvyc38HLL1ef0h7', uid: '00uixa271s6x7qt8I0h7',
    scp: ['openid', 'orders.read'], sub: 'joe@acme.example', groups: ['Everyone', 'Order Readers'],
  };
  const rules = { issuer: 'https://acme.okta.com/oauth2/default', audience: ['api://default'], role_claims: ['groups'] };
  issued('Okta: a custom authorization server', 'good', { header, claims, rules, grants: { scopes: ['orders.read'], roles: ['Order Readers'] }, denies: { roles: ['Readers'] } });
  const org = { header: { ...header, typ: 'application/okta-internal-at+jwt' }, claims: { ...claims, iss: 'https://acme.okta.com', aud: 'https://acme.okta.com' }, keys: keySet(jwk('rsa', { kid: header.kid, use: 'sig', alg: 'RS256' })) };
  const orgRules = { issuer: 'https://acme.okta.com', audience: ['https://acme.okta.com'] };
  issued("Okta: the org's own authorization server", 'token_type_mismatch', { ...org, rules: orgRules });
  issued("Okta: the org's own authorization server, for who must", 'good', { ...org, rules: { ...orgRules, types: ['application/okta-internal-at+jwt'] } });
}
// Microsoft Entra ID
{
  const keys = keySet(jwk('rsa', { use: 'sig', kid: x5t, x5t, x5c, issuer: 'https://login.microsoftonline.com/{tenantid}/v2.0' }), jwk('rsa_other', { use: 'sig', kid: 'l3sQ-50cCH4xBVZLHTGwnSR7680', x5t: 'l3sQ-50cCH4xBVZLHTGwnSR7680', x5c }));
  const v1 = {
    aud: `api://${guid}`, iss: `https://sts.windows.net/${tenant}/`, iat: now - 305, nbf: now - 305, exp: now + 4200, acr: '1', aio: 'AVQAq/8TAAAA', amr: ['pwd', 'mfa'], appid: 'app-1', appidacr: '1', ipaddr: '192.0.2.1', name: 'Zoë Müller', oid: user,
    rh: '0.AX0A', roles: ['Orders.Read.All'], scp: 'Orders.Read User.Read', sub: 'AKIAIOSFODNN7', tid: tenant, unique_name: 'zoe@acme.example', upn: 'zoe@acme.example', uti: 'mRZ', ver: '1.0',
  };
  const header1 = { typ: 'JWT', alg: 'RS256', x5t, kid: x5t };
  const rules1 = { issuer: `https://sts.windows.net/${tenant}/`, audience: [`api://${guid}`, guid] };
  const grants = { scopes: ['Orders.Read'], roles: ['Orders.Read.All'] };
  issued('Entra ID v1', 'good', { header: header1, claims: v1, keys, rules: rules1, grants });
  issued('Entra ID v1: the GUID as the audience, roles as a string, groups elsewhere', 'good', {
    header: header1, claims: { ...v1, aud: guid, roles: 'Order Admin', _claim_names: { groups: 'src1' }, _claim_sources: { src1: { endpoint: 'https://graph.windows.net/x' } } }, keys, rules: rules1, grants: { roles: ['Order Admin'] }, denies: { roles: ['Admin'] },
  });
  issued('Entra ID v1: only x5t', 'good', { header: { typ: 'JWT', alg: 'RS256', x5t }, claims: v1, keys, rules: rules1 });
  const hashed = base64url(json({ ...header1, nonce: createHash('sha256').update('n-0').digest('base64url') })), body = base64url(json({ ...v1, aud: 'https://graph.microsoft.com' }));
  issued('Entra ID v1: of Graph, whose nonce was hashed before it was signed', 'bad_signature', {
    header: header1, claims: v1, keys, rules: { ...rules1, audience: ['https://graph.microsoft.com'] }, token: `${base64url(json({ ...header1, nonce: 'n-0' }))}.${body}.${base64url(sign('RS256', 'rsa', `${hashed}.${body}`))}`,
  });
  const v2 = { ...v1, aud: guid, iss: `https://login.microsoftonline.com/${tenant}/v2.0`, appid: undefined, azp: 'app-1', azpacr: '1', preferred_username: 'zoe@acme.example', ver: '2.0' };
  issued('Entra ID v2', 'good', { header: { typ: 'JWT', alg: 'RS256', kid: x5t }, claims: v2, keys, rules: { issuer: v2.iss, audience: [guid] }, grants });
  issued('Entra ID v2: another tenant', 'issuer_mismatch', { header: { typ: 'JWT', alg: 'RS256', kid: x5t }, claims: { ...v2, iss: 'https://login.microsoftonline.com/99999999-2222-3333-4444-555555555555/v2.0' }, keys, rules: { issuer: v2.iss, audience: [guid] } });
  const b2c = { iss: `https://acme.b2clogin.com/${tenant}/v2.0/`, exp: now + 3595, nbf: now - 5, aud: guid, sub: user, tfp: 'B2C_1_signin', scp: 'orders.read', azp: 'app-1', ver: '1.0', iat: now - 5 };
  const b2cHeader = { alg: 'RS256', kid: 'X5eXk4xyojNFum1kl2Ytv8dlNP4-c57dO6QGTVBwaNk', typ: 'JWT' };
  const b2cRules = { issuer: b2c.iss, audience: [guid], required_values: [['tfp', ['B2C_1_signin']]] };
  issued('Azure AD B2C', 'good', { header: b2cHeader, claims: b2c, rules: b2cRules, grants: { scopes: ['orders.read'] } });
  issued('Azure AD B2C: the issuer names the flow', 'good', { header: b2cHeader, claims: { ...b2c, iss: `https://acme.b2clogin.com/tfp/${tenant}/b2c_1_signin/v2.0/`, tfp: undefined, acr: 'b2c_1_signin' }, rules: { issuer: `https://acme.b2clogin.com/tfp/${tenant}/b2c_1_signin/v2.0/`, audience: [guid], required_values: [['acr', ['b2c_1_signin']]] } });
  issued('Azure AD B2C: another flow', 'claim_missing', { header: b2cHeader, claims: { ...b2c, tfp: 'B2C_1_reset' }, rules: b2cRules });
  const external = `https://${tenant}.ciamlogin.com/${tenant}/v2.0`;
  issued('Entra External ID', 'good', { header: { typ: 'JWT', alg: 'RS256', kid: x5t }, claims: { ...v2, iss: external }, keys, rules: { issuer: external, audience: [guid] }, grants: { scopes: ['User.Read'] } });
}
// Amazon Cognito
{
  const iss = 'https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_EXAMPLE';
  const header = { kid: 'Zn3kpoG1fWfUq6vjY7MxQ0aVbTt1S9eKq4h0oPz0u1E=', alg: 'RS256' };
  const claims = { sub: user, 'cognito:groups': ['admins'], iss, version: 2, client_id: '4example23456789', origin_jti: 'o-1', token_use: 'access', scope: 'aws.cognito.signin.user.admin orders/read', auth_time: now - 5, ...times(), jti: 'j-1', username: 'janedoe' };
  const id = { ...claims, client_id: undefined, scope: undefined, aud: '4example23456789', token_use: 'id', 'cognito:username': 'janedoe', email: 'jane@acme.example' };
  const keys = keySet(jwk('rsa', { alg: 'RS256', use: 'sig', kid: header.kid }), jwk('rsa_other', { alg: 'RS256', use: 'sig', kid: 'second=' }));
  const rules = { issuer: iss, audience: ['4example23456789'], audience_claim: 'client_id', role_claims: ['cognito:groups'], required_values: [['token_use', ['access']]] };
  issued('Amazon Cognito: an access token', 'good', { header, claims, keys, rules, grants: { scopes: ['orders/read'], roles: ['admins'] } });
  issued('Amazon Cognito: an ID token', 'claim_missing', { header, claims: id, keys, rules });
  issued('Amazon Cognito: without audience_claim', 'claim_missing', { header, claims, keys, rules: { ...rules, audience_claim: undefined } });
  issued('Amazon Cognito: of another client', 'audience_mismatch', { header, claims: { ...claims, client_id: 'other' }, keys, rules });
  issued('Amazon Cognito: bound to a resource', 'good', { header, claims: { ...claims, aud: 'https://api.acme.example' }, keys, rules: { ...rules, audience: ['https://api.acme.example'] } });
}
// Google
{
  const header = { alg: 'RS256', kid: 'c3afe7a9bda46bae6ef97e46c95cda48912e5979', typ: 'JWT' };
  const claims = { iss: 'https://accounts.google.com', azp: '32555940559.apps.googleusercontent.com', aud: '32555940559.apps.googleusercontent.com', sub: '113774264463038321964', email: 'jane@acme.example', email_verified: true, at_hash: 'HK6E_P6Dh8Y93mRNtsDB1Q', ...times() };
  const keys = keySet(jwk('rsa', { kid: header.kid, use: 'sig', alg: 'RS256' }), jwk('rsa_other', { kid: 'b2620d5e7f132b52afe8875cdf3776c064249d04', use: 'sig', alg: 'RS256' }));
  const rules = { issuer: 'https://accounts.google.com', audience: [claims.aud], required_values: [['email', ['jane@acme.example']]] };
  issued('Google: an ID token', 'good', { header, claims, keys, rules });
  issued('Google: the issuer without https://', 'good', { header, claims: { ...claims, iss: 'accounts.google.com' }, keys, rules: { ...rules, issuer: 'accounts.google.com' } });
  issued('Google: a service account that names a URL', 'good', { header, claims: { ...claims, aud: 'https://orders.run.app', azp: '1', email: 'robot@acme.iam.gserviceaccount.com' }, keys, rules: { ...rules, audience: ['https://orders.run.app'], required_values: [['email', ['robot@acme.iam.gserviceaccount.com']]] } });
  issued('Google: an access token is opaque', 'malformed_token', { header, claims, keys, rules, token: 'ya29.a0AfH6SMBx-Zt4p3' });
  issued('Google: signed by a service account itself', 'good', {
    header: { alg: 'RS256', typ: 'JWT', kid: 'abcdef1234567890' }, claims: { iss: 'robot@acme.iam.gserviceaccount.com', sub: 'robot@acme.iam.gserviceaccount.com', aud: 'https://orders.acme.example/', ...times() }, rules: { issuer: 'robot@acme.iam.gserviceaccount.com', audience: ['https://orders.acme.example/'] },
  });
  issued('Google: Identity-Aware Proxy', 'good', {
    alg: 'ES256', key: 'p256', header: { alg: 'ES256', typ: 'JWT', kid: '1BE7-Q' }, claims: { aud: '/projects/123456789/global/backendServices/987654321', azp: '/projects/123456789/global/backendServices/987654321', email: 'jane@acme.example', ...times(600), hd: 'acme.example', iss: 'https://cloud.google.com/iap', sub: 'accounts.google.com:113774264463038321964' },
    rules: { issuer: 'https://cloud.google.com/iap', audience: ['/projects/123456789/global/backendServices/987654321'], algorithms: ['ES256'] },
  });
  issued('Firebase', 'good', {
    header: { alg: 'RS256', kid: 'f0d6b9f8e1', typ: 'JWT' }, claims: { name: 'Jane', admin: true, iss: 'https://securetoken.google.com/acme-1', aud: 'acme-1', auth_time: now - 500, user_id: 'u1', sub: 'u1', ...times(), email_verified: false, firebase: { identities: { email: ['jane@acme.example'] }, sign_in_provider: 'password' } },
    rules: { issuer: 'https://securetoken.google.com/acme-1', audience: ['acme-1'] },
  });
}
issued('Apple', 'good', {
  header: { kid: 'W6WcOKB', alg: 'RS256' }, claims: { iss: 'https://appleid.apple.com', aud: 'com.acme.app', ...times(86400), sub: '001234.5f0c', at_hash: 'x', email: 'a@privaterelay.appleid.com', email_verified: 'true', is_private_email: 'true', auth_time: now - 5, nonce_supported: true },
  rules: { issuer: 'https://appleid.apple.com', audience: ['com.acme.app'] },
});
// Keycloak
{
  const iss = 'https://sso.acme.example/realms/shop';
  const header = { alg: 'RS256', typ: 'JWT', kid: 'FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE' };
  const claims = {
    exp: now + 295, iat: now - 5, auth_time: now - 60, jti: 'onrtac:6d0f1a8b-6a4c', iss, aud: ['orders', 'account'], sub: user, typ: 'Bearer', azp: 'web', sid: 's-1', acr: '1', 'allowed-origins': ['https://shop.acme.example'],
    realm_access: { roles: ['offline_access', 'order reader'] }, resource_access: { orders: { roles: ['admin'] }, account: { roles: ['view-profile'] } }, scope: 'openid email orders:read', email_verified: true, preferred_username: 'jane',
  };
  const keys = keySet(jwk('rsa_other', { kid: 'enc', alg: 'RSA-OAEP', use: 'enc', x5c }), jwk('rsa', { kid: header.kid, alg: 'RS256', use: 'sig', x5c, x5t, 'x5t#S256': 'x' }));
  const rules = { issuer: iss, audience: ['orders'], role_claims: ['/realm_access/roles'], required_values: [['typ', ['Bearer']]] };
  const grants = { scopes: ['orders:read'], roles: ['order reader'] }, denies = { roles: ['admin', 'order'] };
  issued('Keycloak', 'good', { header, claims, keys, rules, grants, denies, headerText: '{"alg" : "RS256","typ" : "JWT","kid" : "FJ86GcF3jTbNLOco4NvZkUCIUmfYCqoqtOQeMfbhNlE"}' });
  issued('Keycloak: at+jwt for a client', 'good', { header: { ...header, typ: 'at+jwt' }, claims, keys, rules, grants });
  issued("Keycloak: the client's own roles", 'good', { header, claims, keys, rules: { ...rules, role_claims: ['/resource_access/orders/roles'] }, grants: { roles: ['admin'] }, denies: { roles: ['order reader'] } });
  issued('Keycloak: a lightweight token without sub', 'good', { header, claims: { ...claims, sub: undefined, realm_access: undefined, resource_access: undefined, email_verified: undefined }, keys, rules });
  issued('Keycloak: no audience mapper', 'claim_missing', { header, claims: { ...claims, aud: undefined }, keys, rules });
  issued('Keycloak: only account as the audience', 'audience_mismatch', { header, claims: { ...claims, aud: 'account' }, keys, rules });
  issued('Keycloak: an ID token', 'claim_missing', { header, claims: { ...claims, typ: 'ID' }, keys, rules });
  issued('Keycloak: the client sent a DPoP header', 'token_type_mismatch', { header, claims: { ...claims, cnf: { jkt: 'x' } }, keys, rules });
  issued('Keycloak: before version 16 with sub twice', 'malformed_token', { header, claims, keys, rules, payloadText: json(claims).replace('"typ":', `"sub":"${user}","typ":`) });
  const admin = (count) => ({ ...claims, resource_access: Object.fromEntries(Array.from({ length: count }, (_, i) => [`realm-${i}-realm`, { roles: ['view-users', 'manage-users', 'view-clients', 'manage-clients', 'view-events', 'query-groups'] }])) });
  issued("Keycloak: a realm's administrator, 10 KiB", 'good', { header, claims: admin(58), keys, rules });
  issued("Keycloak: a realm's administrator, more than 16 KiB", 'malformed_token', { header, claims: admin(110), keys, rules });
  issued("Keycloak: a realm's administrator, more than 16 KiB, allowed", 'good', { header, claims: admin(110), keys, rules: { ...rules, max_token_bytes: 32768 } });
}
{
  const header = { typ: 'JWT', alg: 'RS256', x5t, kid: x5t };
  const claims = { aud: `microsoft:identityserver:${guid}`, iss: 'http://fs.acme.example/adfs/services/trust', ...times(), apptype: 'Confidential', appid: 'app-1', authmethod: 'urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport', auth_time: '2026-09-21T14:13:15.000Z', ver: '1.0', scp: 'openid orders.read', role: ['reader', 'writer'], access_token_issuer: 'http://fs.acme.example/adfs/services/trust' };
  const keys = keySet(jwk('rsa', { use: 'sig', alg: 'RS256', kid: x5t, x5t, x5c }));
  const rules = { issuer: 'http://fs.acme.example/adfs/services/trust', audience: [claims.aud], role_claims: ['role'] };
  issued('ADFS', 'good', { header, claims, keys, rules, grants: { scopes: ['orders.read'], roles: ['writer'] } });
  issued('ADFS: one role as a string', 'good', { header, claims: { ...claims, role: 'reader' }, keys, rules, grants: { roles: ['reader'] } });
  issued('ADFS: the key has x5t alone', 'good', { header: { typ: 'JWT', alg: 'RS256', x5t }, claims, keys: keySet(jwk('rsa', { use: 'sig', alg: 'RS256', x5t, x5c })), rules });
  issued('ADFS: the issuer of its discovery', 'issuer_mismatch', { header, claims, keys, rules: { ...rules, issuer: 'https://fs.acme.example/adfs' } });
}
{
  const header = { alg: 'RS256', kid: 'k1', 'pi.atm': '8pf2' };
  const claims = { scope: ['orders.read'], client_id: 'web', iss: 'https://ping.acme.example', aud: 'orders', exp: now + 7200, Username: 'joe' };
  const rules = { issuer: 'https://ping.acme.example', audience: ['orders'] };
  issued('PingFederate', 'good', { header, claims, rules, grants: { scopes: ['orders.read'] } });
  issued('PingFederate: at+jwt', 'good', { header: { ...header, typ: 'at+jwt' }, claims, rules });
  issued('PingFederate: no issuer set', 'claim_missing', { header, claims: { ...claims, iss: undefined }, rules });
  issued('PingFederate: no audience set', 'claim_missing', { header, claims: { ...claims, aud: undefined }, rules });
  issued('PingFederate: no audience set, the client stands in', 'good', { header, claims: { ...claims, aud: undefined }, rules: { ...rules, audience: ['web'], audience_claim: 'client_id' } });
}
issued('PingOne', 'good', {
  header: { kid: 'default', alg: 'RS256', x5t }, claims: { client_id: 'c', iss: 'https://auth.pingone.com/env-1/as', jti: 'j', ...times(), aud: ['https://api.acme.example'], scope: 'orders:read', sub: user, env: 'env-1', org: 'org-1' },
  rules: { issuer: 'https://auth.pingone.com/env-1/as', audience: ['https://api.acme.example'] }, grants: { scopes: ['orders:read'] },
});
{
  const kid = 'wU3ifIIaLOUAReRB/FG6eM1P1QM=';
  issued('ForgeRock, PingAM', 'good', {
    header: { typ: 'JWT', zip: 'NONE', kid, alg: 'RS256' },
    claims: { sub: '(usr!demo)', cts: 'OAUTH2_STATELESS_GRANT', auth_level: 0, auditTrackingId: 'a-1', subname: 'demo', iss: 'https://am.acme.example:443/am/oauth2/realms/root/realms/alpha', tokenName: 'access_token', token_type: 'Bearer', authGrantId: 'g', aud: 'web', nbf: now - 5, grant_type: 'authorization_code', scope: ['openid', 'orders:read'], auth_time: now - 6, realm: '/alpha', ...times(), expires_in: 3600, jti: 'j' },
    keys: keySet(jwk('rsa', { kid, use: 'sig', alg: 'RS256', x5t }), jwk('rsa', { kid, use: 'sig', alg: 'RS384', x5t }), jwk('rsa', { kid, use: 'sig', alg: 'RS512', x5t }), jwk('p256', { kid: 'pZSfpEq8tQPeiIe3fnnaWnnr/Zc=', use: 'sig', alg: 'ES256' })),
    rules: { issuer: 'https://am.acme.example:443/am/oauth2/realms/root/realms/alpha', audience: ['web'] }, grants: { scopes: ['orders:read'] },
  });
}
{
  const header = { alg: 'RS256', kid: 'F1A2B3C4D5', x5t, typ: 'at+jwt' };
  const claims = { nbf: now - 5, ...times(), iss: 'https://id.acme.example', client_id: 'web', sub: '818727', auth_time: now - 5, idp: 'local', aud: ['orders', 'https://id.acme.example/resources'], scope: ['openid', 'orders.read'], amr: ['pwd'], role: 'Order Admin', jti: 'j' };
  const rules = { issuer: 'https://id.acme.example', audience: ['orders'], role_claims: ['role'] };
  issued('IdentityServer, Duende', 'good', { header, claims, rules, grants: { scopes: ['orders.read'], roles: ['Order Admin'] } });
  issued('IdentityServer, Duende: scopes as a string, one audience', 'good', { header, claims: { ...claims, scope: 'openid orders.read', aud: 'orders', role: ['a', 'b'] }, rules, grants: { scopes: ['orders.read'], roles: ['b'] } });
}
{
  const header = { alg: 'RS256', kid: 'public:hydra.jwt.access-token', typ: 'JWT' };
  const claims = { aud: ['orders'], client_id: 'web', ...times(), ext: { tenant: 't1' }, iss: 'https://hydra.acme.example/', jti: 'j', nbf: now - 5, scp: ['openid', 'orders:read'], sub: 'foo@bar.example' };
  const rules = { issuer: 'https://hydra.acme.example/', audience: ['orders'], required_values: [['/ext/tenant', ['t1']]] };
  issued('Ory Hydra', 'good', { header, claims, rules, grants: { scopes: ['orders:read'] } });
  issued('Ory Hydra: no audience asked for', 'audience_mismatch', { header, claims: { ...claims, aud: [] }, rules });
  issued('Ory Hydra: an empty kid (jwt-bearer of 1.11)', 'good', { header: { ...header, kid: '' }, claims, rules, keys: keySet(jwk('rsa', { kid: 'public:hydra.jwt.access-token', use: 'sig', alg: 'RS256' })) });
}
{
  const header = { alg: 'RS256', kid: '264873465', typ: 'JWT' }, role = 'urn:zitadel:iam:org:project:roles';
  const claims = { aud: ['218658379102560257', '218658379102560258'], exp: now + 43200, iat: now - 5, nbf: now - 5, iss: 'https://acme.zitadel.cloud', jti: 'V2_2185', sub: '218658379102560300', client_id: '218658379102560257', [role]: { admin: { 2186583: 'acme.zitadel.cloud' } } };
  issued('Zitadel', 'good', { header, claims, rules: { issuer: 'https://acme.zitadel.cloud', audience: ['218658379102560258'], role_claims: [role], required_claims: [`/${role}/admin`] }, denies: { roles: ['admin'] } });
}
{
  const claims = { iss: 'https://auth.acme.example/application/o/orders/', sub: 'b3a1', aud: 'c1ient', ...times(300), auth_time: now - 5, acr: 'goauthentik.io/providers/oauth2/default', azp: 'c1ient', uid: 'u', scope: 'openid orders', groups: ['authentik Admins', 'orders'] };
  const header = { alg: 'RS256', kid: '1f0', typ: 'JWT' };
  const rules = { issuer: claims.iss, audience: ['c1ient'], role_claims: ['groups'] };
  issued('authentik', 'good', { header, claims, rules, grants: { scopes: ['orders'], roles: ['authentik Admins'] } });
  const input = `${base64url(json({ alg: 'HS256', typ: 'JWT' }))}.${base64url(json(claims))}`;
  issued('authentik: no signing key, so HS256', 'unsupported_algorithm', { header, claims, rules, token: `${input}.${createHmac('sha256', 'secret').update(input).digest('base64url')}` });
}
{
  const claims = { aud: guid, ...times(), iss: 'acme.com', sub: user, jti: 'j', authenticationType: 'PASSWORD', email: 'jane@acme.example', email_verified: true, applicationId: guid, scope: 'openid orders:read', roles: ['admin'], permissions: { orders: ['read'] }, auth_time: now - 5, tid: tenant };
  const header = { alg: 'RS256', typ: 'JWT', gty: ['authorization_code'], kid: 'NTFlZ' };
  const rules = { issuer: 'acme.com', audience: [guid] };
  issued('FusionAuth', 'good', { header, claims, rules, grants: { scopes: ['orders:read'], roles: ['admin'] }, denies: { permissions: ['orders', 'read'] } });
  const input = `${base64url(json({ ...header, alg: 'HS256' }))}.${base64url(json(claims))}`;
  issued('FusionAuth: HS256, as it comes', 'unsupported_algorithm', { header, claims, rules, token: `${input}.${createHmac('sha256', 'secret').update(input).digest('base64url')}` });
}
{
  const header = { alg: 'ES384', typ: 'at+jwt', kid: 'LG0' }, rules = { issuer: 'https://acme.logto.app/oidc', audience: ['https://api.acme.example'] };
  const claims = { jti: 'j', sub: 'u1', ...times(), scope: 'orders:read', client_id: 'web', iss: 'https://acme.logto.app/oidc', aud: 'https://api.acme.example' };
  issued('Logto', 'good', { alg: 'ES384', key: 'p384', header, claims, rules: { ...rules, rfc9068: true }, grants: { scopes: ['orders:read'] } });
  issued('Logto: without a resource the token is opaque', 'malformed_token', { alg: 'ES384', key: 'p384', header, claims, rules, token: 'q1Zk3sW8PzT5v0n_YxJ7dLr2' });
}
{
  const header = { alg: 'RS256', cat: 'cl_B7d4PD111AAA', kid: 'ins_2a', typ: 'JWT' };
  const claims = { azp: 'https://shop.acme.example', exp: now + 60, fva: [0, -1], iat: now - 1, iss: 'https://clerk.acme.example', nbf: now - 11, sid: 'sess_1', sub: 'user_1', v: 2, fea: 'o:orders', o: { id: 'org_1', rol: 'admin', slg: 'acme' }, pla: 'o:pro' };
  const rules = { issuer: 'https://clerk.acme.example', audience: ['https://shop.acme.example'] };
  issued('Clerk: no audience', 'claim_missing', { header, claims, rules });
  issued('Clerk: azp stands in for the audience', 'good', { header, claims, rules: { ...rules, audience_claim: 'azp', role_claims: ['/o/rol'] }, grants: { roles: ['admin'] } });
  issued('Clerk: azp is absent', 'claim_missing', { header, claims: { ...claims, azp: undefined }, rules: { ...rules, audience_claim: 'azp' } });
  issued('Clerk: any audience', 'good', { header, claims: { ...claims, azp: undefined }, rules: { ...rules, audience: [], any_audience: true } });
}
issued('Supabase', 'good', {
  alg: 'ES256', key: 'p256', header: { alg: 'ES256', kid: 'a1', typ: 'JWT' },
  claims: { iss: 'https://p1.supabase.co/auth/v1', sub: user, aud: 'authenticated', ...times(), email: 'jane@acme.example', phone: '', app_metadata: { provider: 'email', providers: ['email'] }, user_metadata: {}, role: 'authenticated', aal: 'aal1', amr: [{ method: 'password', timestamp: now - 5 }], session_id: 's', is_anonymous: false },
  keys: keySet(jwk('p256', { kid: 'a1', alg: 'ES256', ext: true, key_ops: ['verify'], use: 'sig' })), rules: { issuer: 'https://p1.supabase.co/auth/v1', audience: ['authenticated'], role_claims: ['role'] }, grants: { roles: ['authenticated'] },
});
{
  const header = { alg: 'RS256', kid: 'ujqZP2ryDmrtVn' };
  const rules = { issuer: 'https://kubernetes.default.svc.cluster.local', audience: ['orders'], required_values: [['sub', ['system:serviceaccount:shop:web']]] };
  const claims = { aud: ['orders'], ...times(), iss: rules.issuer, jti: 'j', 'kubernetes.io': { namespace: 'shop', node: { name: 'n1', uid: 'u' }, pod: { name: 'web-1', uid: 'u' }, serviceaccount: { name: 'web', uid: 'u' }, warnafter: now + 3602 }, nbf: now - 5, sub: 'system:serviceaccount:shop:web' };
  issued('Kubernetes: a projected service account token', 'good', { header, claims, rules });
  issued('Kubernetes: an issuer that is any string', 'good', { header, claims: { ...claims, iss: 'my cluster' }, rules: { ...rules, issuer: 'my cluster' } });
  issued('Kubernetes: for the API server', 'audience_mismatch', { header, claims: { ...claims, aud: ['https://kubernetes.default.svc.cluster.local'] }, rules });
  issued('Kubernetes: another service account', 'claim_missing', { header, claims: { ...claims, sub: 'system:serviceaccount:shop:db' }, rules });
  issued('Kubernetes: a legacy secret without exp and aud', 'claim_missing', { header, claims: { iss: rules.issuer, 'kubernetes.io/serviceaccount/namespace': 'shop', sub: claims.sub }, rules });
}
{
  const keys = keySet(jwk('p256', { kid: 'C6vs25welZOx6WksNYfbMfiw9l96pMnD', use: 'jwt-svid' }), jwk('p384', { use: 'x509-svid', x5c }));
  const claims = { aud: ['spiffe://acme.example/orders'], ...times(300), sub: 'spiffe://acme.example/ns/shop/sa/web' };
  const rules = { issuer: '', trust_domain: 'acme.example', audience: ['spiffe://acme.example/orders'] };
  const svid = { alg: 'ES256', key: 'p256', claims, keys };
  issued('SPIFFE: a JWT-SVID', 'good', { ...svid, rules, header: { alg: 'ES256', kid: 'C6vs25welZOx6WksNYfbMfiw9l96pMnD', typ: 'JWT' } });
  issued('SPIFFE: a JWT-SVID of typ JOSE without kid', 'good', { ...svid, rules, header: { alg: 'ES256', typ: 'JOSE' } });
  issued("SPIFFE: SPIRE's jwt_issuer", 'good', { ...svid, claims: { ...claims, iss: 'https://oidc.acme.example' }, rules: { issuer: 'https://oidc.acme.example', audience: rules.audience }, header: { alg: 'ES256', kid: 'C6vs25welZOx6WksNYfbMfiw9l96pMnD', typ: 'JWT' } });
  issued('SPIFFE: another trust domain', 'issuer_mismatch', { ...svid, claims: { ...claims, sub: 'spiffe://evil.example/ns/shop/sa/web' }, rules, header: { alg: 'ES256', kid: 'C6vs25welZOx6WksNYfbMfiw9l96pMnD', typ: 'JWT' } });
}
{
  const header = { typ: 'JWT', alg: 'RS256', x5t: 'ykNaY4qM_ta4k2TgZOCEYLkcYlA', kid: '38826b17-6a30-5f9b-b169-8beb8202f723' };
  const claims = {
    jti: user, sub: 'repo:acme/orders:ref:refs/heads/main', aud: 'https://github.com/acme', ref: 'refs/heads/main', sha: '1f0', repository: 'acme/orders', repository_owner: 'acme', repository_owner_id: '1234', run_id: '42', run_number: '10', run_attempt: '1', repository_visibility: 'private', repository_id: '74', actor_id: '1', actor: 'jane', workflow: 'deploy',
    head_ref: '', base_ref: '', event_name: 'push', ref_protected: 'false', ref_type: 'branch', job_workflow_ref: 'acme/orders/.github/workflows/deploy.yml@refs/heads/main', runner_environment: 'github-hosted', iss: 'https://token.actions.githubusercontent.com', nbf: now - 605, exp: now + 295, iat: now - 5,
  };
  const rules = { issuer: claims.iss, audience: ['https://github.com/acme'], required_values: [['repository_owner_id', ['1234']]] };
  const keys = keySet(jwk('rsa_other', { use: 'sig', kid: 'cc413527', x5c, alg: 'RS256', x5t: 'y' }), jwk('rsa', { use: 'sig', kid: header.kid, x5c, alg: 'RS256', x5t: header.x5t }));
  issued('GitHub Actions', 'good', { header, claims, rules, keys });
  issued("GitHub Actions: somebody else's repository", 'claim_missing', { header, claims: { ...claims, repository_owner_id: '6666', repository: 'evil/orders' }, rules, keys });
  issued("GitHub Actions: an enterprise's slug", 'good', { header, claims: { ...claims, iss: `${claims.iss}/acme` }, rules: { ...rules, issuer: `${claims.iss}/acme` }, keys });
  issued('GitHub Actions: Enterprise Server', 'good', { header, claims: { ...claims, iss: 'https://github.acme.example/_services/token' }, rules: { ...rules, issuer: 'https://github.acme.example/_services/token' }, keys });
}
{
  const claims = { namespace_id: '72', namespace_path: 'acme', project_id: '20', project_path: 'acme/orders', user_id: '1', user_login: 'jane', pipeline_id: '574', job_id: '302', ref: 'main', ref_type: 'branch', ref_protected: 'true', runner_id: 1, runner_environment: 'self-hosted', sha: '7', jti: user, iss: 'https://gitlab.acme.example', iat: now - 5, nbf: now - 10, exp: now + 3595, sub: 'project_path:acme/orders:ref_type:branch:ref:main', aud: 'https://api.acme.example' };
  const header = { kid: '4i3sFE7sxqNPOT7FdvcGA1ZVGGI_r-tsDXnEuYT4ZqE', typ: 'JWT', alg: 'RS256' }, rules = { issuer: claims.iss, audience: [claims.aud], required_values: [['project_id', ['20']]] };
  issued('GitLab CI', 'good', { header, claims, rules });
  issued('GitLab CI: several audiences', 'good', { header, claims: { ...claims, aud: ['https://x.example', claims.aud] }, rules });
}
issued('CircleCI', 'good', {
  header: { alg: 'RS256', kid: 'c1', typ: 'JWT' }, claims: { aud: 'org-1', ...times(), iss: 'https://oidc.circleci.com/org/org-1', 'oidc.circleci.com/context-ids': ['c'], 'oidc.circleci.com/project-id': 'p', 'oidc.circleci.com/ssh-rerun': false, sub: 'org/org-1/project/p/user/u' },
  rules: { issuer: 'https://oidc.circleci.com/org/org-1', audience: ['org-1'], required_values: [['oidc.circleci.com/project-id', ['p']]] },
});
issued('Buildkite', 'good', {
  header: { alg: 'RS256', kid: 'b', typ: 'JWT' }, claims: { iss: 'https://agent.buildkite.com', sub: 'organization:acme:pipeline:orders:ref:refs/heads/main:commit:1f0:step:build', aud: 'https://buildkite.com/acme', iat: now - 5, nbf: now - 5, exp: now + 295, organization_slug: 'acme', pipeline_slug: 'orders', build_number: 1 },
  rules: { issuer: 'https://agent.buildkite.com', audience: ['https://buildkite.com/acme'], required_values: [['organization_slug', ['acme']]] },
});
issued('HashiCorp Vault', 'good', {
  header: { alg: 'RS256', kid: 'd26f4b3d' }, claims: { aud: 'orders', ...times(86400), iss: 'https://vault.acme.example:8200/v1/identity/oidc', namespace: 'root', sub: user },
  rules: { issuer: 'https://vault.acme.example:8200/v1/identity/oidc', audience: ['orders'] },
});
issued('Salesforce', 'good', {
  header: { tnk: 'core/prod/00D', ver: '1.0', kid: '254', tty: 'sfdc-core-token', typ: 'JWT', alg: 'RS256' },
  claims: { scp: 'refresh_token api orders_api', aud: ['https://acme.my.salesforce.com', 'https://api.acme.example'], sub: 'uid:005xx000001X8Uz', nbf: now - 20, mty: 'oauth', sfi: 'x', roles: [], iss: 'https://acme.my.salesforce.com', hsc: false, exp: now + 7200, iat: now - 5, client_id: '3MVG9' },
  rules: { issuer: 'https://acme.my.salesforce.com', audience: ['https://api.acme.example'] }, grants: { scopes: ['orders_api'] },
});
{
  const header = { x5t: 'NTAxZmMxNDMyZDg3MTU1ZGM0MzEzODJhZWI4NDNlZDU1OGFkNjFiMQ', kid: 'MDJlNjIxN2E1OGZlOGVmMGQxOTFlMzBmNmFjZjQ0Y2YwOGY0N2I0YzE4YzZjNjRhYmRmMmQ0ODdiNDhjMGEwMA_RS256', typ: 'at+jwt', alg: 'RS256' };
  const claims = { sub: user, aut: 'APPLICATION_USER', iss: 'https://wso2.acme.example:9443/oauth2/token', client_id: 'c', aud: 'c', nbf: now - 5, azp: 'c', scope: 'orders:read openid', ...times(), jti: 'j' };
  const rules = { issuer: claims.iss, audience: ['c'] };
  issued('WSO2', 'good', { header, claims, rules, grants: { scopes: ['orders:read'] } });
  issued('WSO2: never expiring', 'malformed_token', { header, claims: { ...claims, exp: 9223372036854775 }, rules });
}
{
  const claims = { wlcg: { ver: '1.0', groups: 1 }, 'wlcg.ver': '1.0', 'wlcg.groups': ['/cms', '/cms/prod'], sub: 'a1b98335', iss: 'https://wlcg.cloud.cnaf.infn.it/', scope: 'storage.read:/cms storage.create:/cms/out compute.create', aud: 'https://wlcg.cern.ch/jwt/v1/any', nbf: now - 5, ...times(), jti: 'j', client_id: 'c' };
  issued('WLCG', 'good', { header: { kid: 'rsa1', alg: 'RS256' }, claims: { ...claims, wlcg: undefined }, rules: { issuer: claims.iss, audience: ['https://wlcg.cern.ch/jwt/v1/any', 'https://se.acme.example'], role_claims: ['wlcg.groups'] }, grants: { scopes: ['storage.read:/cms'], roles: ['/cms/prod'] }, denies: { scopes: ['storage.read'] } });
  const sci = { iss: 'https://scitokens.org/cms', sub: 'u', aud: 'ANY', scope: 'read:/cms', ver: 'scitokens:2.0', nbf: now - 5, ...times(), jti: 'j' };
  const rules = { issuer: 'https://scitokens.org/cms', audience: ['ANY', 'https://se.acme.example'] };
  issued('SciTokens', 'good', { alg: 'ES256', key: 'p256', header: { typ: 'JWT', alg: 'ES256', kid: 'key-es256' }, claims: sci, rules, grants: { scopes: ['read:/cms'] } });
  issued('SciTokens: of version 1 without aud', 'claim_missing', { alg: 'ES256', key: 'p256', header: { typ: 'JWT', alg: 'ES256', kid: 'key-es256' }, claims: { ...sci, aud: undefined, ver: 'scitoken:1.0' }, rules });
}
{
  const header = { alg: 'RS512' }, claims = { iss: 'https://auth.globus.org', sub: user, aud: guid, ...times(172800), at_hash: 'x', email: 'jane@acme.example', preferred_username: 'jane@globusid.org', identity_set: [{ sub: user, organization: 'Globus ID' }] };
  const rules = { issuer: 'https://auth.globus.org', audience: [guid] };
  const keys = keySet(jwk('rsa', { alg: 'RS512', use: 'sig' }));
  issued('Globus: an ID token', 'good', { alg: 'RS512', header, claims, keys, rules });
  issued('Globus: an access token is opaque', 'malformed_token', { alg: 'RS512', header, claims, keys, rules, token: 'AgEyz1Wb2Vq9pXjK' });
}
issued('EGI Check-in', 'good', {
  header: { alg: 'RS256', typ: 'JWT', kid: 'egi1' }, claims: { ...times(), jti: 'j', iss: 'https://aai.egi.eu/auth/realms/egi', aud: ['orders', 'account'], sub: 'd45b@egi.eu', typ: 'Bearer', azp: 'c', scope: 'openid entitlements', entitlements: ['urn:mace:egi.eu:group:vo.acme.example:role=member#aai.egi.eu'] },
  rules: { issuer: 'https://aai.egi.eu/auth/realms/egi', audience: ['orders'], role_claims: ['entitlements'], required_values: [['typ', ['Bearer']]] }, grants: { roles: ['urn:mace:egi.eu:group:vo.acme.example:role=member#aai.egi.eu'] },
});
issued('Dex', 'good', {
  header: { alg: 'RS256', kid: 'a3f1' }, claims: { iss: 'https://dex.acme.example/dex', sub: 'CgcyMzQyNzQ5EgZnaXRodWI', aud: 'cli', ...times(86400), at_hash: 'x', email: 'jane@acme.example', email_verified: true, groups: ['acme:admins'], name: 'Jane' },
  rules: { issuer: 'https://dex.acme.example/dex', audience: ['cli'], role_claims: ['groups'] }, grants: { roles: ['acme:admins'] },
});
issued('Spring Authorization Server', 'good', {
  header: { kid: user, alg: 'RS256' }, claims: { sub: 'user1', aud: 'messaging-client', nbf: now - 5, scope: ['openid', 'message.read'], iss: 'http://auth-server:9000', exp: now + 295, iat: now - 5, jti: 'j' },
  rules: { issuer: 'http://auth-server:9000', audience: ['messaging-client'] }, grants: { scopes: ['message.read'] },
});
issued('node oidc-provider', 'good', {
  header: { alg: 'RS256', typ: 'at+jwt', kid: 'r1LkbBo3925Rb2ZFFrKyU3MVex9T2817Kx0vbi6i_Kc' }, claims: { jti: 'T3', sub: 'acc', ...times(), scope: 'api:read', client_id: 'web', iss: 'https://op.acme.example', aud: 'urn:api' },
  rules: { issuer: 'https://op.acme.example', audience: ['urn:api'], rfc9068: true }, grants: { scopes: ['api:read'] },
});
{
  const header = { alg: 'RS256', kid: 'c8f5d3', typ: 'JWT' }, claims = { aud: ['4714c1358e65fe4b408ad6d432a5f878f08194bdb4752441fd56faefa9b2b6f2'], email: 'jane@acme.example', ...times(), nbf: now - 5, iss: 'https://acme.cloudflareaccess.com', type: 'app', identity_nonce: '6ei6', sub: user, country: 'DE' };
  const rules = { issuer: claims.iss, audience: claims.aud };
  issued('Cloudflare Access', 'good', { header, claims, rules });
  issued('Cloudflare Access: a service token, whose sub is empty', 'good', { header, claims: { ...claims, email: undefined, sub: '', common_name: 'e367.access' }, rules });
}
{
  const header = { alg: 'RS256', kid: 'fa:d2:bc', typ: 'JWT' }, claims = { aud: ['https://api.acme.example'], azp: 'c', ...times(86400), iss: 'https://acme.kinde.com', jti: 'j', org_code: 'org_1', permissions: ['read:orders'], scope: 'openid orders', scp: ['openid', 'orders'], sub: 'kp_1' };
  const rules = { issuer: claims.iss, audience: ['https://api.acme.example'] };
  issued('Kinde', 'good', { header, claims, rules, grants: { scopes: ['orders'], permissions: ['read:orders'] } });
  issued('Kinde: a machine, without sub', 'good', { header, claims: { ...claims, sub: undefined, scope: undefined, gty: ['client_credentials'] }, rules, grants: { scopes: ['orders'] } });
}
{
  const header = { alg: 'RS256', kid: 'sso_oidc_key_pair_01' }, claims = { iss: 'https://api.workos.com/', sub: 'user_1', sid: 's', jti: 'j', org_id: 'org_1', role: 'member', permissions: ['orders:read'], ...times(300), scope: 'openid profile' };
  const rules = { issuer: 'https://api.workos.com/', audience: ['client_1'], role_claims: ['role'] };
  issued('WorkOS: no audience', 'claim_missing', { header, claims, rules });
  issued('WorkOS: an array as the audience', 'good', { header, claims: { ...claims, aud: ['client_1'] }, rules, grants: { roles: ['member'], permissions: ['orders:read'], scopes: ['profile'] } });
  issued('WorkOS: any audience', 'good', { header, claims, rules: { ...rules, audience: [], any_audience: true } });
}
{
  const header = { typ: 'JWT', alg: 'RS256', jti: 'd8c' }, claims = { aud: '3', jti: 'd8c', iat: raw(`${now - 5}.123456`), nbf: raw(`${now - 5}.123458`), exp: raw(`${now + 31536000}.987654`), sub: '1', scopes: ['orders-read'] };
  const rules = { issuer: 'https://laravel.acme.example', audience: ['3'], scope_claims: ['scopes'] };
  const keys = keySet(jwk('rsa'));
  issued('Laravel Passport: no issuer', 'claim_missing', { header, claims, rules, keys });
  issued('Laravel Passport: with an issuer, fractions of seconds, no kid', 'good', { header, claims: { ...claims, iss: 'https://laravel.acme.example' }, rules, keys, grants: { scopes: ['orders-read'] } });
}
{
  const header = { alg: 'RS256', kid: 'airlock' }, claims = { iss: 'https://iam.acme.example', aud: 'orders', sub: 'u', scope: ['orders'], ...times() };
  const rules = { issuer: claims.iss, audience: ['orders'] };
  issued('Airlock IAM', 'good', { header, claims, rules, grants: { scopes: ['orders'] } });
  issued('Airlock IAM: endless', 'claim_missing', { header, claims: { ...claims, exp: undefined }, rules });
  issued('Airlock IAM: no issuer', 'claim_missing', { header, claims: { ...claims, iss: undefined }, rules });
}
{
  const header = { alg: 'RS256', typ: 'JWT', kid: 'nomad' }, claims = { aud: ['orders'], exp: now + 3600, iat: now - 5, nbf: now - 5, iss: 'https://nomad.acme.example', jti: 'j', nomad_allocation_id: 'a', nomad_job_id: 'web', nomad_namespace: 'default', nomad_task: 'web', sub: 'global:default:web:web:web:default' };
  const rules = { issuer: claims.iss, audience: ['orders'] };
  issued('Nomad', 'good', { header, claims, rules });
  issued('Nomad: no exp, as it comes', 'claim_missing', { header, claims: { ...claims, exp: undefined }, rules });
  issued('Nomad: before 1.7 without an audience', 'claim_missing', { header, claims: { ...claims, aud: undefined }, rules });
  issued('Nomad: an EdDSA key', 'good', { alg: 'EdDSA', key: 'ed25519', header: { ...header, alg: 'EdDSA' }, claims, rules });
}
issued('gematik ZETA', 'good', {
  alg: 'ES256', key: 'p256', header: { typ: 'at+jwt', alg: 'ES256', x5c }, claims: { iss: 'https://zeta.acme.example', ...times(300), aud: ['https://fachdienst.acme.example'], sub: '1-2012345678', client_id: user, jti: 'j', scope: 'vsdservice' },
  keys: keySet(jwk('p256', { use: 'sig', alg: 'ES256', x5c })), rules: { issuer: 'https://zeta.acme.example', audience: ['https://fachdienst.acme.example'], rfc9068: true }, grants: { scopes: ['vsdservice'] },
});
