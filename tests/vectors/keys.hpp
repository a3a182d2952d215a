// Made by make.mjs (OpenSSL 3.0.22, node v20.20.2); see README.md. Do not edit.
#ifndef AXIOMS_JWKS_TESTS_VECTORS_KEYS_HPP
#define AXIOMS_JWKS_TESTS_VECTORS_KEYS_HPP

#include <string_view>

namespace vectors {

inline constexpr std::string_view message =
    "signed by the openssl command";

// rsa
inline constexpr std::string_view rsa_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAqeDhG00boji/YNPW4EP0\n"
    "CTrdBj4AadQHaw2HMN5gMg2yTAwOY+prS3z8uC+vM6fKg95Dopg8YvicWZOX8608\n"
    "CjJQXp2yysP76rvGXxGpC07i8cG+RfcSO1bXC+nv1kG+hGamrkf+CnUj0dUob11d\n"
    "KiR8q1oX1hitlZGpJrZllsa03bupz1EMwrEuJIq3YB67PekLHT/mH6Eg+9xL8Urk\n"
    "NOfI/WG6CVSWqnrEasLQWTPVSjI3mzbNl+pThmVqLELf9pRzgt7UvVSlF0YmnmK0\n"
    "3aE4BlMXtOtztpFwkTX1+UwlKXlu8nsD0+pCsZOBSZIpS9mhKDMoAqd4jRTTFHbV\n"
    "9wIDAQAB\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view rsa_jwk =
    "{\"kty\":\"RSA\",\"n\":\"qeDhG00boji_YNPW4EP0CTrdBj4AadQHaw2HMN5gMg2yTAwOY-prS3z8uC-vM6fKg95Dopg8YvicWZOX8608C"
    "jJQXp2yysP76rvGXxGpC07i8cG-RfcSO1bXC-nv1kG-hGamrkf-CnUj0dUob11dKiR8q1oX1hitlZGpJrZllsa03bupz1EMwrEuJIq3YB67Pek"
    "LHT_mH6Eg-9xL8UrkNOfI_WG6CVSWqnrEasLQWTPVSjI3mzbNl-pThmVqLELf9pRzgt7UvVSlF0YmnmK03aE4BlMXtOtztpFwkTX1-UwlKXlu8"
    "nsD0-pCsZOBSZIpS9mhKDMoAqd4jRTTFHbV9w\",\"e\":\"AQAB\"}";
inline constexpr std::string_view rsa_thumbprint =
    "iiRSC2296PXA64CKjJXrbkEOTUuSM9KzDtdPnV821fM";
inline constexpr int rsa_bits = 2048;
inline constexpr std::string_view rsa_openssl_signature =
    "Kj_qMgjjdfw-yBmUuab3uymRcRnklIA3PTKQaSFn1SvSXIlc_RwO8Ry9C-rpGtX6zGTNOtn4y5x6unUeKU5PyHPWIr8TE1XhghW3EWS3TO6StR"
    "0Nq06-ZXGtA8QWLrVFk_f4zLLptE6X9smLhFJM7jDm8zKYS635cI-jArSKuLIwaKN9tzan_IIIuovxzJKZY3cRaPxReH8hbh5RgGNKtrc0X4LP"
    "_FyAebmATZv-Uo8vv5BmCzCaz1coUYmNQN8B1FasBaeqAPRQ4ebxXBUgv8u-P-FYrcRtzcV-F3bjZU3jiIGeBNKhl5-zVrCy-nDMXA4edKR5hN"
    "4DS2BLYgjfqg";
inline constexpr std::string_view rsa_rs256_token =
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ2ZWN0b3IifQ.O4mVh-Bp2nql7NcJdIBb01vFZeM_YspSimqt9peoumyJKWZ3XDf84vxtY4E5c9ORTt"
    "Xxzs_Z7UQw7iGPS1EDdfs1TPJdpYvl1OFwxYPgtyGK1zMeHjF9al05J0bnfVBPZ6m4Ns37my8M1TSDlWQFMfAvHrEkvua-nyHIQnMkFZY0jVEf"
    "y3zgi35Arj3ERsiqORJx_rlCg8h54yLeBCM6v9A4jlwm6WH2qJspbwCB2lVUWwuAGyRD7SlDK_0FhpbfZZbwvSTq_T7qh_y53elWarootfH6jx"
    "KbB9FJKCo9yKutAYeRe1JkxN6KRA-JHdLh3sVH0nm9WegnfNuBToa8Cg";
inline constexpr std::string_view rsa_rs384_token =
    "eyJhbGciOiJSUzM4NCJ9.eyJzdWIiOiJ2ZWN0b3IifQ.Or1qfQKzz1C5TzltNUka5rXOoyuDe0w6S0eCDW1fip4uLGNHcdC0vIj3-CfIigU2W8"
    "da5BdNAjjHeya0_Hbq0ofWrWBGKAzU8xJQnPrPiUjScmZ2TypkckDxzS59msVc1VnIjJLmVYzkiGHVJchiVASBqIqEw0xmvBYBIqlc00n9M88O"
    "tSbcmLbgT6kJDjDQxIL-KRS0hryOfIqpY81uVUFuUamQTDyQ-7_Cwwi73qL6ytdyucmyohK0oHpZ3H1elPx-topTeRcfrkNXvo9SJKN9PGhv37"
    "2tJl1qNuyAwyc-wWwQgGOIx8fU8cq3yZZpkZG0yk0S9HQB-Ti4-RL_rA";
inline constexpr std::string_view rsa_rs512_token =
    "eyJhbGciOiJSUzUxMiJ9.eyJzdWIiOiJ2ZWN0b3IifQ.ikTx-0zzCxoG-EsCevsfnuD4aweWndqwwrFlGOoylOt_ACC7EQJk50hreMEHyCJb7h"
    "JJZFAiVA3IXbV_6VHek6FXcXyxhvkoW-TuFseVg34dn-usWjwZYNEneJOKCTH7SAIRKRKZOCEZ9kZFn7eCTd-aEWbkdYFl__nc4tyYKTwHnyjr"
    "N7JduRwVBjV-oFCPqRekX6hchMeknCcqD-gM5P1ru3Z-GN4m9pbCeVTuYffv6JAJmISYGESBBoYotIu-PRypFhf7mQU5u690_muTmkJj2pIonO"
    "Fm1UsUlVrGWO3g6lwxKtbaL8GJ2x-F7dccd9Pj_t8INmiMda79PQsWYw";
inline constexpr std::string_view rsa_ps256_token =
    "eyJhbGciOiJQUzI1NiJ9.eyJzdWIiOiJ2ZWN0b3IifQ.m_WYxEMG54yhSaFPVQkGI-afQ0a2wOaX-Rb2Lbw63abGxtbj3oKGJPnEKB9O0dT13Z"
    "igpuYZpgA_Jco0N_8IgXRUL_AI9DFLVyaIr8Yy2oYfkMa1Gk_ElO2kxQBaVaZPfIQyXzPXp_sdiaowelP58BtZ2lQjkuvd-jvg4vCCzch2VWDi"
    "gtcuR4fN8f1XwB2Uett8hH0wiehXe5YXRi3oNXCIYYUp0iEnXfuuTZYKhoq0tIdnCTFr4C7s0IcyniHHhmBHGOn3Fc-JgWAgohEB-eLqJLuZZu"
    "RRy_IAdi4VxrY7MLaN0XA6aMWhNmUxGZtIlbPrxUtVwh91gWJGcJ398Q";
inline constexpr std::string_view rsa_ps384_token =
    "eyJhbGciOiJQUzM4NCJ9.eyJzdWIiOiJ2ZWN0b3IifQ.Bgs8GFe770nt-sE3a8utTi5BxAEbVq0-WzNeDI4yDAswczbXVeWg9TgJXMF8BGquHt"
    "an0RT4KKfBxDouiY4rul8T_13HhYmOYuATdO4NWvmBFzOqNBV_sil6qJ62pPClWI7U0ESGv6rCe6_47suGEmPu_vMS50QYjtygTHcswTY1Zds4"
    "zdi8sFE84o90ejGJ6g5wGDuPCkYmn2wMtulzCs3QktVMX8oz5Uw_JQvL7FV6aiuoYatKw6r4qoTzZ6PBTxYgNHot_tARFu_KpBMOxKnO61VWaX"
    "9qVRARLgOsdOpyg5N18A41L9xZd7GxzNLzjr4dQ5jFaoRLSb5w9_LQrg";
inline constexpr std::string_view rsa_ps512_token =
    "eyJhbGciOiJQUzUxMiJ9.eyJzdWIiOiJ2ZWN0b3IifQ.KQI0PqTTS46Ri8XCoUli_TRJm7CE6WCVIhZKWL6wTjyfxrGTKm-SaVQHa7oeKnqpbo"
    "n-vO9Go3AzCsebBVRn51E2xZQMjKjA6KjmE4X2oucMg6YZ9i52ooUVls4YkcBcGVzm0Msgi9yux_gwnKnoYj_gSrXN0-t2ZpbiMbXccGjrhRhF"
    "6_sRnfgX0AW9W7iiWtH2iORdAe5lioyke2QzqnRJvIKVAq5x4bq-7y5Z-Wm8UZrjlv4H1nuBkevmEdSh7dbvdEjajfzKegKfGcIxCFPaYSwz1D"
    "Fl1z8kjn1JVsqSPh81XDZGf4gzdkvpov8uEx6wKJ48k6nmFZlA_VDQag";

// rsa_e3
inline constexpr std::string_view rsa_e3_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MIIBoDANBgkqhkiG9w0BAQEFAAOCAY0AMIIBiAKCAYEAolKfgwNRibTpiBPOU3wP\n"
    "CXp7Ix25IrfazKPw+3SEYCDI0Y2dhInyUUGhSEIkuoymEf1DTrUBnOCR0YTxa6vw\n"
    "sM9hMk2sY6ZZzfl175bjr2lKr13OrucCltv/2SUapfvxhvswhLVzJerW/87QAfbg\n"
    "YK+oLwfsElwEuDtMZVJ42TrR/TeMoXtW7Pc/C/zRmGDNuQ+zHPH7VkSi0dODreNH\n"
    "iYgn1eXUYw1hMYbeV8E8Gvo1p2NHzqDYgs4nrGPU3KBxLi2RxydOy+p0Ef3eNPbQ\n"
    "x894goQlRzDqyM/eTPqxQCg6JaaKVNEs6RepGQsMYHgdgvXi3Gy/b+IlKmrRcLva\n"
    "Xd+7e/BOswf+rS4Nw0hSlmerpkaiQLWckTVngoZSL3MrTAQ7lQQjnLP4PmjBSdHA\n"
    "S6rXuJ9zng+/hQnw/ct+/pvzgThDG5HRMUpT0VXnrKOgxdcQYxDRyibxLHNki1tk\n"
    "AI4BOijJfg8div2cmdoqoM6LDYVYaZ+9mZkospnPawztAgED\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view rsa_e3_jwk =
    "{\"kty\":\"RSA\",\"n\":\"olKfgwNRibTpiBPOU3wPCXp7Ix25IrfazKPw-3SEYCDI0Y2dhInyUUGhSEIkuoymEf1DTrUBnOCR0YTxa6vws"
    "M9hMk2sY6ZZzfl175bjr2lKr13OrucCltv_2SUapfvxhvswhLVzJerW_87QAfbgYK-oLwfsElwEuDtMZVJ42TrR_TeMoXtW7Pc_C_zRmGDNuQ-"
    "zHPH7VkSi0dODreNHiYgn1eXUYw1hMYbeV8E8Gvo1p2NHzqDYgs4nrGPU3KBxLi2RxydOy-p0Ef3eNPbQx894goQlRzDqyM_eTPqxQCg6JaaKV"
    "NEs6RepGQsMYHgdgvXi3Gy_b-IlKmrRcLvaXd-7e_BOswf-rS4Nw0hSlmerpkaiQLWckTVngoZSL3MrTAQ7lQQjnLP4PmjBSdHAS6rXuJ9zng-"
    "_hQnw_ct-_pvzgThDG5HRMUpT0VXnrKOgxdcQYxDRyibxLHNki1tkAI4BOijJfg8div2cmdoqoM6LDYVYaZ-9mZkospnPawzt\",\"e\":\"Aw"
    "\"}";
inline constexpr std::string_view rsa_e3_thumbprint =
    "Nb-4JnoNEcB1eoO3YtZnLQSaaloxXjaixOLAwbxmjCA";
inline constexpr int rsa_e3_bits = 3072;
inline constexpr std::string_view rsa_e3_openssl_signature =
    "gK71cvvlJvBnu6mb_r2ONeg41_ZlPckOpTT6snF4lXevynCeiVYLeJ41e-I16fD3-6bu3V5ezOSB9q34j-dj3Bz4JpxWVKvrKD1Lf4K7unZ_aV"
    "p67gTdxO_EJjPDDgazk6nMa8vfA8U2lhgaTfZaKyNKG4MW6miXS9HpUlXqoQJsqOxmwon0z45ttycs62ub4Am82_isGggKWzEEyIdhRPeXg1sm"
    "XWcmi4p1MiQI55OZW8vjL84PDNgXbcGr4AOKDLmJO9Gu4kbzUUVVZoJZMFRHdSqsmOnsUlSzPu4bG30hyM3zGl_5ZKXwqE3Iuj1QtQfu1VHnhP"
    "3-_hYspuizo4GSWCrmvJmo9h3d6gfilJhMs4EzuMTBHqgG7bEOivNFZx4VuZASyobq9nzm0gSExoPmpTZCuskAZLqLjlbOiNt7yJf_IqB2YhKj"
    "n94vZOwY42NogcdNOZxk6t_5Cc1Y4OjvRXF2sGiCX_beHMF4C1cWhRfiU_lYBm6vZtrKjZ58";

// rsa_1024
inline constexpr std::string_view rsa_1024_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDsZnFhh4KdJ4hmdoEJuOWMTWsf\n"
    "ly1nv1NeNljxfafhy2od04tvxz0tKPK5kuQevQ7he/oMu1hTSXf6X5Ywy2Luql+L\n"
    "rjbvGSL0BdNPBe3+mJGu9hxbwzdKf1TktBIUtr2722CEzprCqK20zdYDx8yfzBSH\n"
    "9ZmFDQrpE4KMfXFHwQIDAQAB\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view rsa_1024_jwk =
    "{\"kty\":\"RSA\",\"n\":\"7GZxYYeCnSeIZnaBCbjljE1rH5ctZ79TXjZY8X2n4ctqHdOLb8c9LSjyuZLkHr0O4Xv6DLtYU0l3-l-WMMti7"
    "qpfi6427xki9AXTTwXt_piRrvYcW8M3Sn9U5LQSFLa9u9tghM6awqittM3WA8fMn8wUh_WZhQ0K6ROCjH1xR8E\",\"e\":\"AQAB\"}";
inline constexpr std::string_view rsa_1024_thumbprint =
    "jf98rTNe70dIalv7Pw23pBz9Op2gjL_OVoGo5aqUmsI";
inline constexpr int rsa_1024_bits = 1024;
inline constexpr std::string_view rsa_1024_openssl_signature =
    "lXUX3ODfCtwQOnGRzxO6Ws_HtCFkD96eeZf58GJJr36nW-weijy3fcoUodA7e3PuWWBSl6qJoE-TimG9u10X1O2xGDRyToDA_xsLiwm4zr7-ea"
    "5YH-h8UTBtYcSWT9ngZTc0zZ1BW4SjqVsut82pHyniM5WRSDp8dPO_GG-Lo6s";

// p256
inline constexpr std::string_view p256_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEX5vYotCaWcoZOqBCzKcTDTwda5OT\n"
    "3+LKbnoOb1tnw/2PDpFLEXXG0rhLxOy7sGp/kqvkuCXmWrgOONWhLSRFJQ==\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view p256_jwk =
    "{\"kty\":\"EC\",\"x\":\"X5vYotCaWcoZOqBCzKcTDTwda5OT3-LKbnoOb1tnw_0\",\"y\":\"jw6RSxF1xtK4S8Tsu7Bqf5Kr5Lgl5lq4"
    "DjjVoS0kRSU\",\"crv\":\"P-256\"}";
inline constexpr std::string_view p256_thumbprint =
    "cYf13hcirfvcUHEZSlmTiOUNfxjZNtPGy5Zhw778cuM";
inline constexpr int p256_bits = 256;
inline constexpr std::string_view p256_openssl_signature =
    "MEYCIQDrza6iw_8EzlQVZZAkOrExH2x5UKtacrawnrE8bQssVAIhAJd9IJx__MhNY2RorAiSVATCW1mhT2zlNv-n91nT2Xmi";
inline constexpr std::string_view p256_es256_token =
    "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ2ZWN0b3IifQ.T5ZuYqc4baFyc4WJx0NV827MsOD0KZ1hHLSnd_CSEZF5aRVwNP6ucAYKJ4uKseTXxq"
    "v57EGPYejJGi737dUHfQ";

// p384
inline constexpr std::string_view p384_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAECfeYyfpLzhJPC2d8cr6fYGal0uT0QIvW\n"
    "cciFGN4Tl3i5vx725lTmy/Hv2hhjwuP9iUtXqpdfC9U5SZRgryPokmBM6AR0oy86\n"
    "ra5OdgtxyRT0m+6kNtbhixcg1M3ARemr\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view p384_jwk =
    "{\"kty\":\"EC\",\"x\":\"CfeYyfpLzhJPC2d8cr6fYGal0uT0QIvWcciFGN4Tl3i5vx725lTmy_Hv2hhjwuP9\",\"y\":\"iUtXqpdfC9U"
    "5SZRgryPokmBM6AR0oy86ra5OdgtxyRT0m-6kNtbhixcg1M3ARemr\",\"crv\":\"P-384\"}";
inline constexpr std::string_view p384_thumbprint =
    "DfF1_-bjHkfbdqJw08fK47nm9S6cpnzdXmyKs8Hxv54";
inline constexpr int p384_bits = 384;
inline constexpr std::string_view p384_openssl_signature =
    "MGUCMBc1u3DG3K7EWW1BENZefNcdp3aZ0IID3v-xGpCWSkenm5gVnavtjhdFJwSzeTriJAIxAMdwrTDLVATB6TNUPhbiYJ77sf6B-odpwhdiGx"
    "ko-R3RRSuqoSpPqLR_ErXJTG0-HQ";
inline constexpr std::string_view p384_es384_token =
    "eyJhbGciOiJFUzM4NCJ9.eyJzdWIiOiJ2ZWN0b3IifQ.CAhnEQ5ii0Taj-GKoH5R1d8APfgKx-1p5l7VfqExNgGXNDQiEnsyeUW5ZvSffyp0HU"
    "zbd1oKDbA6swmLTUz-TXsxvso-kATHwU-UXM_Rhi7RuzzaKAf1d3N_R8NhqBMv";

// p521
inline constexpr std::string_view p521_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQA5A/+7hzZopeA2CXwN9wO35RjbJG3\n"
    "qFzrgUYvthjGzrdw7syozI/9FN3tG0PPqOtJTm1WXzJi+M7YT2KnSyqkzPYBfMZk\n"
    "dSafVsOPS605azhrMaHobJP78H6mwkSaZil7LQqI1UYo1ERVvMQ2bBRrLPUtyMB6\n"
    "RjJal2NWZPGPOqr9oNM=\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view p521_jwk =
    "{\"kty\":\"EC\",\"x\":\"AOQP_u4c2aKXgNgl8DfcDt-UY2yRt6hc64FGL7YYxs63cO7MqMyP_RTd7RtDz6jrSU5tVl8yYvjO2E9ip0sqpM"
    "z2\",\"y\":\"AXzGZHUmn1bDj0utOWs4azGh6GyT-_B-psJEmmYpey0KiNVGKNREVbzENmwUayz1LcjAekYyWpdjVmTxjzqq_aDT\",\"crv"
    "\":\"P-521\"}";
inline constexpr std::string_view p521_thumbprint =
    "HZkxD481c805mcqnwYM9_76qtkdoY6xPphACtekTpQw";
inline constexpr int p521_bits = 521;
inline constexpr std::string_view p521_openssl_signature =
    "MIGIAkIBtzJG5nnrQ55cwqbq-u8n4G7Q2O6Mx1SzP17F8sKkgSazGVj_wbI2tkfdy_OEyMVSzeEIhiN39SKiLnG9vu1SvnUCQgCnxfuE2h41Zm"
    "ez1Z0PCCpWVbMi3iagaY8XVxHcaUQ5tW8lV2n7gJUfIIq8tBbiMtfYFPjkWLzGvL-zW2KLsd2Wtw";
inline constexpr std::string_view p521_es512_token =
    "eyJhbGciOiJFUzUxMiJ9.eyJzdWIiOiJ2ZWN0b3IifQ.AVYsEwIg0IM70-3ns9PlJUpk_c_etr-RP0pjnzjm4lpdCY10qDI5nD7sobgk4eLYZV"
    "qqK3JKfKK43iY8RDgfAY3BAAu8AkDYsB7RDNibuMnc7rlL-xvNJrgfwOHkvXGDaHz0bbDuGxg2lEcmPR_4c3pKjIZ3nsGq3efFXt-quLpOThcn";

// ed25519
inline constexpr std::string_view ed25519_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MCowBQYDK2VwAyEAD7uMLJD3lOtcoUyCGSZoAz/lJwlSDnpxXmsqzzlAsJM=\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view ed25519_jwk =
    "{\"crv\":\"Ed25519\",\"x\":\"D7uMLJD3lOtcoUyCGSZoAz_lJwlSDnpxXmsqzzlAsJM\",\"kty\":\"OKP\"}";
inline constexpr std::string_view ed25519_thumbprint =
    "M_bUhekW9XekQDuwJozsKN5o6LFHGEYUuZCv9S5q6Ag";
inline constexpr int ed25519_bits = 256;
inline constexpr std::string_view ed25519_openssl_signature =
    "6w_JQhWU0ADtqkDIbDqEoSOOg-kCqDEicSvt3irkb2XXUO27y-vSI7KmelXU_4ifFVlpijRvW7T5pocou8vCAA";
inline constexpr std::string_view ed25519_eddsa_token =
    "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ2ZWN0b3IifQ.q5h3AmHJndC3lpX2svpJxbeCzw_aXfF0Zm8Z8HTgpOCsvxlQ2-qZRhFaOnhmQ1Zf9r"
    "fOVBearUDbviovVIHiDA";

// ed448
inline constexpr std::string_view ed448_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MEMwBQYDK2VxAzoAoX2p47WEV2Twq6ofiyXr/MxaFZz5U0n+ZuLj6t49mA4F7im0\n"
    "CniNeh/yRKfGKI/ubBngIUyFDhiA\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view ed448_jwk =
    "{\"crv\":\"Ed448\",\"x\":\"oX2p47WEV2Twq6ofiyXr_MxaFZz5U0n-ZuLj6t49mA4F7im0CniNeh_yRKfGKI_ubBngIUyFDhiA\",\"kt"
    "y\":\"OKP\"}";
inline constexpr std::string_view ed448_thumbprint =
    "EanH9aKhZT3c8ut7rtmQsZcWE5P-nyRudgAkwqwuIIM";
inline constexpr int ed448_bits = 456;
inline constexpr std::string_view ed448_openssl_signature =
    "z0k4IZ2CIx7Wecd3Ll4FkqVWYjM5KnDeqtEJgXbbrYptr4h_i4O5fS23R_vNaZsak1Dkt74GRlGAKe0Sh4u4Rgf0Eep-VihauiDdTuLN5pO_DE"
    "OAbF39GhFSvmNZQeABzwWMAV5esdtrXOsR783DMjcA";
inline constexpr std::string_view ed448_eddsa_token =
    "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ2ZWN0b3IifQ.qOGgKCKQcab_XKZ5vMgkdbxwDKz1JGF19ajIxmMGAB1l3Adz4-qiVnQ6zGKkuJhqH4"
    "8Rh99dPNGAw4UT9Fr1dv1reLCEX_wzLRDHvCfgjTLka8OVvizlIitZz1s6Kn-69yeJpJGrEA4A0wZVGvz8VC4A";

// p256 with a zero at the start of x
inline constexpr std::string_view p256_zero_x_jwk =
    "{\"kty\":\"EC\",\"x\":\"ALUZBlcTrhHVlWhnM7WLZ8KNT7_-7CCGmznxDmdkPHI\",\"y\":\"Pd1xjFwCPN2UH1QvNQs7qmNHbbSeM_20"
    "8wp1CaAex3Y\",\"crv\":\"P-256\"}";
inline constexpr std::string_view p256_zero_x_dropped_jwk =
    "{\"kty\":\"EC\",\"x\":\"tRkGVxOuEdWVaGcztYtnwo1Pv_7sIIabOfEOZ2Q8cg\",\"y\":\"Pd1xjFwCPN2UH1QvNQs7qmNHbbSeM_208"
    "wp1CaAex3Y\",\"crv\":\"P-256\"}";
inline constexpr std::string_view p256_zero_x_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEALUZBlcTrhHVlWhnM7WLZ8KNT7/+\n"
    "7CCGmznxDmdkPHI93XGMXAI83ZQfVC81CzuqY0dttJ4z/bTzCnUJoB7Hdg==\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view p256_zero_x_thumbprint =
    "rY6ihMtCCkzbRMtnlhP6XBZxSpkA1LYKGQiEnit6RI0";

// p256 with a zero at the start of y
inline constexpr std::string_view p256_zero_y_jwk =
    "{\"kty\":\"EC\",\"x\":\"d-2vqIh19QRrhWhuDW5Hrx9yhzgugUDP2sZlIsbZIxE\",\"y\":\"AKzKwPpDhdr97P39yz9hmyE1geJzqB3a"
    "gC_8bzYy8HA\",\"crv\":\"P-256\"}";
inline constexpr std::string_view p256_zero_y_dropped_jwk =
    "{\"kty\":\"EC\",\"x\":\"d-2vqIh19QRrhWhuDW5Hrx9yhzgugUDP2sZlIsbZIxE\",\"y\":\"rMrA-kOF2v3s_f3LP2GbITWB4nOoHdqA"
    "L_xvNjLwcA\",\"crv\":\"P-256\"}";
inline constexpr std::string_view p256_zero_y_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEd+2vqIh19QRrhWhuDW5Hrx9yhzgu\n"
    "gUDP2sZlIsbZIxEArMrA+kOF2v3s/f3LP2GbITWB4nOoHdqAL/xvNjLwcA==\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view p256_zero_y_thumbprint =
    "il3Cosg_zG-bb_2e2-TCdB_NjNmAXRtBDkL2ceGNPlA";

// p521 with a zero at the start of x
inline constexpr std::string_view p521_zero_x_jwk =
    "{\"kty\":\"EC\",\"x\":\"ALR7GxPrAmmTlxRxpKWs_49vVdXtaWKwdFg6kz4YAq3Ui5SzWOFR7OV3YZbVOM17GLMu4JYxNb-2mw-nz8CHg4"
    "aq\",\"y\":\"AFYAhS_LEkHlTppN_gzc8SCjBS33k3jAVENCSGK7Y6g6VbKozHoVGdcEzBifSTMJlnAw68nWM3ywK2KWwWDSXKQb\",\"crv"
    "\":\"P-521\"}";
inline constexpr std::string_view p521_zero_x_dropped_jwk =
    "{\"kty\":\"EC\",\"x\":\"tHsbE-sCaZOXFHGkpaz_j29V1e1pYrB0WDqTPhgCrdSLlLNY4VHs5XdhltU4zXsYsy7gljE1v7abD6fPwIeDhq"
    "o\",\"y\":\"AFYAhS_LEkHlTppN_gzc8SCjBS33k3jAVENCSGK7Y6g6VbKozHoVGdcEzBifSTMJlnAw68nWM3ywK2KWwWDSXKQb\",\"crv\""
    ":\"P-521\"}";
inline constexpr std::string_view p521_zero_x_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQAtHsbE+sCaZOXFHGkpaz/j29V1e1p\n"
    "YrB0WDqTPhgCrdSLlLNY4VHs5XdhltU4zXsYsy7gljE1v7abD6fPwIeDhqoAVgCF\n"
    "L8sSQeVOmk3+DNzxIKMFLfeTeMBUQ0JIYrtjqDpVsqjMehUZ1wTMGJ9JMwmWcDDr\n"
    "ydYzfLArYpbBYNJcpBs=\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view p521_zero_x_thumbprint =
    "_Wwrisu0lYmrBSthJUTYa3U0j5vNcRQ9xgUDqM3jl08";

// p521 with a zero at the start of y
inline constexpr std::string_view p521_zero_y_jwk =
    "{\"kty\":\"EC\",\"x\":\"AKfQVjQHHsFIJl5XqS8hnPEcUxJv6oHE9oKTeQLdljzjJUGoKBOeQJt6CQWn67kIEPNpxArG9G0fithx5tVr9-"
    "Qv\",\"y\":\"AK_qpmHJsBifRS4D38jZBak4ZduwPPZ0JQGj2tjU_SkdOC4qcAsqDF1klnglcL4FWGSoUO0ajo7Sh2COtAwut-yo\",\"crv"
    "\":\"P-521\"}";
inline constexpr std::string_view p521_zero_y_dropped_jwk =
    "{\"kty\":\"EC\",\"x\":\"AKfQVjQHHsFIJl5XqS8hnPEcUxJv6oHE9oKTeQLdljzjJUGoKBOeQJt6CQWn67kIEPNpxArG9G0fithx5tVr9-"
    "Qv\",\"y\":\"r-qmYcmwGJ9FLgPfyNkFqThl27A89nQlAaPa2NT9KR04LipwCyoMXWSWeCVwvgVYZKhQ7RqOjtKHYI60DC637Kg\",\"crv\""
    ":\"P-521\"}";
inline constexpr std::string_view p521_zero_y_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQAp9BWNAcewUgmXlepLyGc8RxTEm/q\n"
    "gcT2gpN5At2WPOMlQagoE55Am3oJBafruQgQ82nECsb0bR+K2HHm1Wv35C8Ar+qm\n"
    "YcmwGJ9FLgPfyNkFqThl27A89nQlAaPa2NT9KR04LipwCyoMXWSWeCVwvgVYZKhQ\n"
    "7RqOjtKHYI60DC637Kg=\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view p521_zero_y_thumbprint =
    "YjmqLkMxzdtRqpUyE1Ql6MxHh_mpTNdMQK_uKr2sIsU";

// a private key
inline constexpr std::string_view rsa_private_jwk =
    "{\"kty\":\"RSA\",\"n\":\"w6FwhRXKhgLbFbGtOwpE7yyO-FIkeZh-0qPCiu7ayA5f9w4Br5zn26JGSnJxjmDMy_tvx3hyfnmLO9bRBwFpf"
    "O5ySbeUvTIrpGjAm2Hmp2aodIeI2nk79d_947vg8D0faRVU4fgv-raa_88jJv9LR7M-Gy-dFDCX7GQmKhdHHQO8qx8-T4SxAoR1JuSlaGKRgjM"
    "aSDJpEzUk2pGvaTMMwp8mRAHog4z4-ttIcAjZZgyaLaJSCHcirqZG-1C9g4JYXbpoSRqtq-TT9K7E2puydsQ825TpD8phrBZm1qbbTXvPM32-z"
    "z7R1nrCMc0ZRjuLYJx3sTPFMyy-_kwJD0ShgQ\",\"e\":\"AQAB\",\"d\":\"BaxgHE-S-GgLQAbbH3ecXVoI3iDNh-c3wCf8cht5GioPd2b"
    "ZcwgD0eLrMB1t_VwBkv0COS26RWNWVvNTekI26BWP0np3mNgelcwnuLQMRJijgqPOr0NNns8HGggLrYeI--Osho5izi9mVFfYKf8hoEMB4JSXx"
    "nP7OQRJ9oFYlgV0Wicj691Xf2R9AkxBFMYYC5fKrojEO5bTAQLFEzGK_wWr8cy00EfGvSq-zW6nlavO41F6z-svNKqCSBHNvVRMUrfpCp2uZEg"
    "T3WgdK3j1pzTZKpsMvMu_W6OJi3O9f5dEi5V3cFDyhKBvUfhA92nmu6EP43sv4mGkhCI-DZIb1w\",\"p\":\"-LKEzLudqqKQZ9DHaBCrLbLJ"
    "UBP6owk9iMTMtzFUGpebl_tSXTO4afjuzgRQGsj1TM9EZqh1mwcOfsKJXTAgcEDR7oMSIOB9VIAwc9aF-V397115QaM-tlreH53RozvEx78bEH"
    "vvOA2uXLUhCzhj6MWorIn8CAmyMpZk_dEwIhs\",\"q\":\"yWADZ2U2rDOj_T0P7vC2Xgem54R3XmX7Dm7CgL-uv6R8cvHZL7iXrhY6Yo5NGk"
    "jnGqUi4xlNx_YGF5PA95zzkJujCTntQT3nvpYUA3NcuJD1hKZ4EdqTNCI4Ixzpo1obtrAxzuIuuhOiSXPjemyZg9LJWAnNGmYAiOWtzELT5JM"
    "\",\"dp\":\"Eid16jwH1lznjax_4ejVlhBnAaFzulMCWumCyByhtw86HG4MJSGRZKr3Q7Ks5kelIGZA5_2EGDz7oeUxgcvxkkApEvAecqfwfiq"
    "dXtdaEEn8L2zzXQc9nLIlZMlwdCn4w1v_7cQeQkk9YScXsmn7YRKMrYulCjErAOZZmO2cReE\",\"dq\":\"iiqsazbQylosPEa3NfRGzEFnzR"
    "XgaQ6DsSVhosDh_2-2S4-QuuNmfvWVXaXRVSWMG4YOZ88mxPoSt_6SudIgc6m1tVDfbpIw_V0voiZ3CdO8ASXO4EEeGvkXl0_xJjlfJnvB0Pbz"
    "pIxwHwG6pHb65a2spBElfuVZnJQqKSn5BK0\",\"qi\":\"bUFAuLGP_udqQtsPgZXEJMhEYswsGIJTvhv7tnGr1G1VSMh35aJMeA1C1XITSxx"
    "gt60JBxoq-GI2WkD_TqigPvNSIee3q8HqdjLjQqc5iqPvhaJ4u95GmIkh6V4rEOpfcSIdtSozwBYaX5lj7CyMlySLIGJGx0T0gIwhkL8_I4k\""
    "}";

// another private key
inline constexpr std::string_view ed25519_private_jwk =
    "{\"crv\":\"Ed25519\",\"d\":\"RABtGqialsyr_4kaOkXGyIgXL4Ccwh7-7vNDK6tgyQ4\",\"x\":\"lo9Dx9rlfscKR8ungQLwR5y4sdO"
    "tweCYoV94KDEgZGc\",\"kty\":\"OKP\"}";

}  // namespace vectors

#endif
