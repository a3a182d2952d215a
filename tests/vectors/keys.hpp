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
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA2rz1yqKwcLuxquQYGe7o\n"
    "+hnqQdiocEplcyIo47Vv5/5iz1bTmMhAKFMpUDIn7DuItSsYzUhf6YnMA3dytwnr\n"
    "Yp3mWuzx0oAa/e7iEyM4MiTgTZkYdph1shhj1wi7fe9unEF35I8jY+mpExrLj9v7\n"
    "g4SFBO/1fVyuE43FaXbe11n5jEyc7BUVzocp1aO6Q3f0A6tj6xQIZSbtLR8OZ1no\n"
    "+QxTB8r1OHFVmqCww5yITRKbs260Ruwmd4HITrQNLB4sA4vV4Q8lVkFGuqwefz5d\n"
    "SX9O2cYjF1ZAcE8sMzws+qgv87AUZa0z0nVrIgjG5OC8tib4wuBEmu+ORax9IDjl\n"
    "owIDAQAB\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view rsa_jwk =
    "{\"kty\":\"RSA\",\"n\":\"2rz1yqKwcLuxquQYGe7o-hnqQdiocEplcyIo47Vv5_5iz1bTmMhAKFMpUDIn7DuItSsYzUhf6YnMA3dytwnrY"
    "p3mWuzx0oAa_e7iEyM4MiTgTZkYdph1shhj1wi7fe9unEF35I8jY-mpExrLj9v7g4SFBO_1fVyuE43FaXbe11n5jEyc7BUVzocp1aO6Q3f0A6t"
    "j6xQIZSbtLR8OZ1no-QxTB8r1OHFVmqCww5yITRKbs260Ruwmd4HITrQNLB4sA4vV4Q8lVkFGuqwefz5dSX9O2cYjF1ZAcE8sMzws-qgv87AUZ"
    "a0z0nVrIgjG5OC8tib4wuBEmu-ORax9IDjlow\",\"e\":\"AQAB\"}";
inline constexpr std::string_view rsa_thumbprint =
    "eHL0plVzSRJiPkS9vAD07ZExKp-PMbHaNzpkwed5eB0";
inline constexpr int rsa_bits = 2048;
inline constexpr std::string_view rsa_openssl_signature =
    "dtjQ57hJr7RoEUtuA0AuT7Urkujkt9d584d0g0qjw9G_qmpd5ZhaQ1XAzR0BO1kXr2OPTW7J9_sTtx8GoDUA7vddKNGDyxQGxIoMBZ6_xvHKA-"
    "Rk-DsZZhN75bh8l5xeKbJFDQHDowEFkEyEBSi2_sCGY6NmMMU7SF48c-_TeeEyeshHbXz6hGCDWG8PP6o8Mz85n7-W4nTAGDxdNWYUfEGyFQH_"
    "y4kAIRC2llgszz_e43cUJesSAXVImZ7Ix1wuftN_T59KEX1oegqRmznFnUfbasSvuts39KQd1_92a-XXldh4_yX6awJ-CLd-4GpFNA2KRz4-rD"
    "EwkjY4lb1tsg";
inline constexpr std::string_view rsa_rs256_token =
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ2ZWN0b3IifQ.gqz9vhUP6z5OR7mtI4MqmMUz3HpvmefVc0IpqRz2SC_hpgwC69ukoa3Hru8yn2mQLV"
    "Cu4wyZuHswUSIbFLy4mH8B87AX_ELqpwSrFfhyLhp4rj6CTd-b7fbiMsprn6PkdPUK2uQLQF4sPzYjnFw798YTDY19su1d5SIw8EBpvKOp72MR"
    "tQUmvPzsq7ouiLqt3dJO8CCz5gqVzoKBkfYBZzxwSDkFjUNf0ZJIaK3DtJm2o1amyiH3LOKUWqMwDWihC_eqru9Q29mlEkyaTcIHR9nhDQ2DUf"
    "Gnyj9iH8AQWt6uE-1V37mB-6ewoTApycT1DJMsLuoBC0m3DmPwZnYiPw";
inline constexpr std::string_view rsa_rs384_token =
    "eyJhbGciOiJSUzM4NCJ9.eyJzdWIiOiJ2ZWN0b3IifQ.Knmcv6vD2gZF_mMHk-9o_DuS2hCUrIR8CQlrN7xDGZ_St1hjAqQicpC_wTJaysE7rr"
    "mviqJAZ42leIaXP2z9IOEe9Kc3UG0vnO-RDNmQgECV6uWC2NSwWOPjvuQLAiKWiGT1iYpnXniU-jhkhj-kyoPJmCuufLAnfHE_c2HRqLqov8zb"
    "Lt7kmGJvvl6gV2KzCpotfNTjV2rFa-F9lKLKcKN3-Qs9zTzqTb8w5qAj7oMAkhHwDT6kI3w3hCEJ4mhY6OhK_R7_BDaoPU-IwKqBs-SuMd78VS"
    "Ncc7kBceWKVS7tSfWjUcDT2rfbpt7OumSZzFQoCtiPuze8Apta49z-VA";
inline constexpr std::string_view rsa_rs512_token =
    "eyJhbGciOiJSUzUxMiJ9.eyJzdWIiOiJ2ZWN0b3IifQ.Tso2YxfJtWUuWQD_TKtN2kbYWAMe5XgPUrDEQ403uJ7lIG_RLRjs9P-I6v1ib8T9yQ"
    "7hOHGkr6_qkV2Cj41ry68R9pziLGMgNhjtbUJmHAF0cnGvxylvUDGUx8HpNfKjyBmNgw2SBhssZj7VRFQ6obqHmiBnRVdu8b1tPLhAdQ1c9N9v"
    "KltgUfH1X4cCWZZmVYTMg-OSoukkpr1UOWolZkVCJAjJk5253d27yAFDtQcUtNVuWU6k37DY48SNYtcQyNB1h7ej_XmfReQxzSI8z4XuGN65kR"
    "-6yGNRhj0NxnMVfqq7xHtwi0UQdjDy4VrEIlRSpVsJ-qRMVb0UXx5KJg";
inline constexpr std::string_view rsa_ps256_token =
    "eyJhbGciOiJQUzI1NiJ9.eyJzdWIiOiJ2ZWN0b3IifQ.2Pvh68wfzEbcCNteOTLwehIOXlom1fev4LKJWl3dQt4njIxG1AoZeIZQN0wR7TT4CN"
    "__qDsT13pXQh9vBqhdBWBGOrtG7l8MeWCKEG4VS_81wirwiO2xDUemY3tN-d-wY1B7w8sZQ155r-0q-SjzVaIhH2l1irTx_ShKgar3jN7hz556"
    "8zsO_sLQpZVBYus4EV9ebpcpPGDC3FIexxKkIOfAtM1a-TEKBnGwgnPkfIbJpg2PVD32m8VRZ2BNxYbrqCRgu2dNWX1weNKmt9IsYdKQ5SN9Yb"
    "qEo-fuOv_hRH1zQZ1S8a1a7vtrDgTRGbA6jdNN2sPTfyExGyKktng6xg";
inline constexpr std::string_view rsa_ps384_token =
    "eyJhbGciOiJQUzM4NCJ9.eyJzdWIiOiJ2ZWN0b3IifQ.w4bEmAcaBO8JBKN65z8s46Du7Pep6UT_LGbxl1IuMPxoven4DRPXb717LfB283r3Zj"
    "KWlbM0u1IJh1wmphh2i--GjKRWsRN_qix1tr31AroTT3L2VbuuX1Mfgy9CTVKNN5CF37xJKM0G3oF_zWpBd7s_BTvrWtAx-7JYE7T3FQyyWz5p"
    "fJ9yJlvhGFTVykF3yD_yyV6PojpHClRXIvMmJVBgnE2I3eNJPknd5B4z_4aYyaDDz0JRwlEkJ8aIb7CWkblZe6rQhyU5n-IM0PQhWzYcPjkdar"
    "clvZ7fUOT4GPTMyYF2Zt3m8oX8dOCgtbi7c2QGtzZozIqDSGPZx0vUPQ";
inline constexpr std::string_view rsa_ps512_token =
    "eyJhbGciOiJQUzUxMiJ9.eyJzdWIiOiJ2ZWN0b3IifQ.tsHwQVI1jw5NIw9gLXCUjrMhVNC158kzkoNDyfhhUw6K9CkyT8BxxiD_MQaUsgKMJU"
    "lsf_jCwwFwDbbZlYbTOBOvhdTOQMIQJxYfczCQkM-PTLqa0LQHHxiogdsSw7Zso_DtgsCObpwttSqX7-SmG00yH3xo10pUdUb7Xc-PrQ_EF8xz"
    "mAbVGy3ZD6lYscE_RndG6wT_uL8ZffJbg6gWJv-aRjrY4wKAXLfo7yIa_lXbRMUdr7oArQecx34fD_1BL4Shi7GMbJ98Xbva8lu91wnOTuZGnS"
    "UzRJIL3hYz0Viu8j7UxC785ZOU357G-XC-eG1JeeZmegqcgfa9LjBLaQ";

// rsa_e3
inline constexpr std::string_view rsa_e3_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MIIBoDANBgkqhkiG9w0BAQEFAAOCAY0AMIIBiAKCAYEA1HS07O8lPrFbOCbTHPLv\n"
    "YqK4Dyjhkp138S9dHZEzLsn3iOauOtZk+wRH0YIoza8xEIvUls0E4SHKOiItxNXs\n"
    "GAh+YcoK/lrZNDZxW+LiftdnAFecXKtqNb1A9FVAGSuX7X/7CmFgaZps7JuiezBN\n"
    "GNwTCBKoU9gESJvtGXXS7/nYV4pS3/ZJHHHzHDs+YFSn3MEM/xwsFNHCjoaPbJ46\n"
    "PHsrTbRSA9fKkyh/XxiMTan+C2YKlanYbm4wNAnsT02vYOKLlrncuM86q6Np6RhS\n"
    "+Qgk7BcfqXjYXK9ZThLUgMReguzP76GNo28VTUa7GxFZUDV6DVe9nRGcr8pBkBv6\n"
    "usfHIkqaCwmYg/VcAf9qh+d9NQt8lIcSwdyPEc7FyqPexB6A7pMSrfd8Jvvolu0s\n"
    "iuPAweplDXM4ZnkOLcvGvNevZwvtKUmM/UazjFc1xnSSCpSfVrGg+2o8iWy36UK6\n"
    "R6yvZYso7TvCp0PkJcWcEeVTdDrTtCO7uhpSPtdgyZFTAgED\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view rsa_e3_jwk =
    "{\"kty\":\"RSA\",\"n\":\"1HS07O8lPrFbOCbTHPLvYqK4Dyjhkp138S9dHZEzLsn3iOauOtZk-wRH0YIoza8xEIvUls0E4SHKOiItxNXsG"
    "Ah-YcoK_lrZNDZxW-LiftdnAFecXKtqNb1A9FVAGSuX7X_7CmFgaZps7JuiezBNGNwTCBKoU9gESJvtGXXS7_nYV4pS3_ZJHHHzHDs-YFSn3ME"
    "M_xwsFNHCjoaPbJ46PHsrTbRSA9fKkyh_XxiMTan-C2YKlanYbm4wNAnsT02vYOKLlrncuM86q6Np6RhS-Qgk7BcfqXjYXK9ZThLUgMReguzP7"
    "6GNo28VTUa7GxFZUDV6DVe9nRGcr8pBkBv6usfHIkqaCwmYg_VcAf9qh-d9NQt8lIcSwdyPEc7FyqPexB6A7pMSrfd8Jvvolu0siuPAweplDXM"
    "4ZnkOLcvGvNevZwvtKUmM_UazjFc1xnSSCpSfVrGg-2o8iWy36UK6R6yvZYso7TvCp0PkJcWcEeVTdDrTtCO7uhpSPtdgyZFT\",\"e\":\"Aw"
    "\"}";
inline constexpr std::string_view rsa_e3_thumbprint =
    "3T3cX7xB9R0ADcXuXlGwBgh3xiqs2mhEvxvvMNdKFpY";
inline constexpr int rsa_e3_bits = 3072;
inline constexpr std::string_view rsa_e3_openssl_signature =
    "uGl7HiuvMRo4kZZ2pZur8XZZbq_1hNX_rMyjzf7CUc_i4cowK2QeyPLCr--avzdnJOhb5_SO-U624ei4rP5KRXTeiMqlcEIdCSXZV57rCyFSm_"
    "_ORgbOs2eGI2XT5IsvvVnlSuNldqqIB-taT7EQ35GUEJn6ne3jQ0ShISl1hGwBm5NBJ6h6bfLd_onns2CGRIqAgTWft8QF1XAv9x6gPoSs7_JZ"
    "dfxwKEXIfSZFn7mnNH4P9Fn1oqTjp5A-8gS2EbxzvKlV4I3S7VEIt41-1wW-Eb82_etOgK4JYK-EsokjAD8sJIIcDmbCNw4I1_goK4h3p6n6aE"
    "6dAf-K6gE7ZJ7WKxkG-hNSdh7tqcG7H1Vp3zoBGlUhUzPWzmuDqGjAs8_6K1WNXyHxFaUbHi2xwwxvM0XRAzOgZbhU89b6qVJAn8Pr8NSea4ZC"
    "Djvm7Ol2TIcy3Cem_nKuTNOI4psd-vyuG03ewLHJsyvVK4Yv96DRkyk_rM649SheYyhFdEPB";

// rsa_1024
inline constexpr std::string_view rsa_1024_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQDv8x6mgSZFBcl+ftZRiGpkmvjJ\n"
    "6zytpIAk3cBuHA3ya0a9DheCIjXn0MWyE02OoQmR9WgJ8YBH0OsXg4jVTXCIzwQ9\n"
    "qAVpArrEzOV27yqDl0WCis4xPdxoOXBTN3X8+u/tYsx+WsVDO2zDTvZG6be1gDyD\n"
    "PjaLFiqddIzZsuNiTwIDAQAB\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view rsa_1024_jwk =
    "{\"kty\":\"RSA\",\"n\":\"7_MepoEmRQXJfn7WUYhqZJr4yes8raSAJN3AbhwN8mtGvQ4XgiI159DFshNNjqEJkfVoCfGAR9DrF4OI1U1wi"
    "M8EPagFaQK6xMzldu8qg5dFgorOMT3caDlwUzd1_Prv7WLMflrFQztsw072Rum3tYA8gz42ixYqnXSM2bLjYk8\",\"e\":\"AQAB\"}";
inline constexpr std::string_view rsa_1024_thumbprint =
    "pSFAyFGI5h75BlpFaK3ADQpYky2PslhuzuG3XKJb3Ws";
inline constexpr int rsa_1024_bits = 1024;
inline constexpr std::string_view rsa_1024_openssl_signature =
    "iaiKtFYDIh8GvM3zy1i-jwcw7ByduAR8xGqeALxlZmb41_AM21oeX07jEKw_LdPiqil4qEFAiQVrAMrKWg4D-73IIXb6IXcOxme7TYz4Av8tzC"
    "1lpCoFiX9GDFcjZP_ceuSxq6Ow-z7s-YGVwkA23oGTEpa1mEx11xL_TTqpAJQ";

// p256
inline constexpr std::string_view p256_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEIYVm5lX7BSR5PggcQzNKY3XfqYvX\n"
    "T97kWvikdljqKx7FHCFln/KKFGw1sliNKHQWS+SMKDGOcXJ61aVHNuxcgg==\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view p256_jwk =
    "{\"kty\":\"EC\",\"x\":\"IYVm5lX7BSR5PggcQzNKY3XfqYvXT97kWvikdljqKx4\",\"y\":\"xRwhZZ_yihRsNbJYjSh0FkvkjCgxjnFy"
    "etWlRzbsXII\",\"crv\":\"P-256\"}";
inline constexpr std::string_view p256_thumbprint =
    "9RIxt8Tqjrubwty4vvOO4z4l4sDri2mrgU8-hv_m9uI";
inline constexpr int p256_bits = 256;
inline constexpr std::string_view p256_openssl_signature =
    "MEUCIEDK8kb8yI5Gax1--dGtvkH4VwuoJtWWQJZQj0ZZiqrLAiEA3OgvfscSJQyD_NxnszTDmajOSiD09tyS4SdQtrveZ8Y";
inline constexpr std::string_view p256_es256_token =
    "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ2ZWN0b3IifQ.bvRlv0-PcpkzN4yVfGJXM_z1W4zFiCH5OB9Q-JOHPoA_Hf04XeKJSHAjpfjugmK6CM"
    "F_nvZvrMwID8dm3KNvlw";

// p384
inline constexpr std::string_view p384_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAEoIlAauSTSpnQ8L5StvYj9Qu1+F124NRy\n"
    "GT6guGIAjy4u4ftzwf0Kv0SSRdFIx7tTAzr7+ViL8V6RP39D5UJ2a1okWMiemw5g\n"
    "xklruH8RGJqTBGBE0FzPQT++JGBxM/Ei\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view p384_jwk =
    "{\"kty\":\"EC\",\"x\":\"oIlAauSTSpnQ8L5StvYj9Qu1-F124NRyGT6guGIAjy4u4ftzwf0Kv0SSRdFIx7tT\",\"y\":\"Azr7-ViL8V6"
    "RP39D5UJ2a1okWMiemw5gxklruH8RGJqTBGBE0FzPQT--JGBxM_Ei\",\"crv\":\"P-384\"}";
inline constexpr std::string_view p384_thumbprint =
    "9j6fplO1hmtKCTmfSJmYeYMEt5d2iinYKhR6Qko3tVo";
inline constexpr int p384_bits = 384;
inline constexpr std::string_view p384_openssl_signature =
    "MGUCMExcvxTImt0-CkzKwbMYhS77aDSoN91EP4IG2W23udxNJ2Mnz1cwE0Q8Nmh81pdATQIxAKkUWrpUXhFpU-YstmMHhaogIAefZB-mMGcb0Y"
    "yXQKVKU621jfzCcKjzFd6cHGUkuw";
inline constexpr std::string_view p384_es384_token =
    "eyJhbGciOiJFUzM4NCJ9.eyJzdWIiOiJ2ZWN0b3IifQ.EvKyLcv46QaQ6gt-i5L7rVGDy2gWu4ErPAl5sOK-zNSDgi8fAs7RJkV1pitxdbwHtJ"
    "ekGaYtyAAqKg2DFqR9a-A3T4acHDYwaLgcIPs9tosH02Xj1t9h6wk_fPy6RKiA";

// p521
inline constexpr std::string_view p521_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQBaynrbHLYYxpR5Uwufhwk7RBiS9qV\n"
    "zuZ+hb+7hnDBbCS4EDN4zhELjh5K4r46TLGQL4hCRzRbHRiqtH/x/LLl/L4AyW2g\n"
    "MSx16FAhCiS5mLBBDm4LEYwkHvx32Ba0dPf1UflHOINv38G9K5TZeWNqOWA7STTr\n"
    "BNCsE5m6xPU7iSzL14s=\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view p521_jwk =
    "{\"kty\":\"EC\",\"x\":\"AWsp62xy2GMaUeVMLn4cJO0QYkvalc7mfoW_u4ZwwWwkuBAzeM4RC44eSuK-OkyxkC-IQkc0Wx0YqrR_8fyy5f"
    "y-\",\"y\":\"AMltoDEsdehQIQokuZiwQQ5uCxGMJB78d9gWtHT39VH5RziDb9_BvSuU2XljajlgO0k06wTQrBOZusT1O4ksy9eL\",\"crv"
    "\":\"P-521\"}";
inline constexpr std::string_view p521_thumbprint =
    "DWPorX8vbcEM4m75QtmWY52M5gul3Ztfg8hi7IF2hFs";
inline constexpr int p521_bits = 521;
inline constexpr std::string_view p521_openssl_signature =
    "MIGHAkIBMioxHD669I-JUxVZjIL7ozEJwkrdaePgbcTpoWJL7JUF-h_KqJuWSPxKFWNmktDogjYf-aY5bN6JzxSLFSeWcakCQX6EnEwtRYXYqM"
    "UUEZJ0sUM-IL-ais5EAJYyqTD1lTAXrZp5n8mnz50f0yOnh8xNXJ_mHj5nr-HLQC_Llxfm79d7";
inline constexpr std::string_view p521_es512_token =
    "eyJhbGciOiJFUzUxMiJ9.eyJzdWIiOiJ2ZWN0b3IifQ.ANBo81fmYWq97fNB0ZYr2FJmuitBF5RIVFY5D4WtgHLzEumJrteJhTiSjVRP0hq1lr"
    "I4q6g0Y8mVzst7lgKR0jnqALKc2szr4jhRiUOtYdnw8bLvKxcpR9UuBO-lhOnFhsatkHZaaIfXZVmn2wkYNn8Pe1IWu66ri95uu5pbNQYI9eFE";

// secp256k1
inline constexpr std::string_view secp256k1_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAEzDB2mJonYXqAN7xrbvP7Y2ZDc4B2b65h\n"
    "USHYtSvOAxAQbDRFINF9ioUG//R4xbiJZ56ki4IKoZBqKD3jrjGQnQ==\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view secp256k1_jwk =
    "{\"kty\":\"EC\",\"x\":\"zDB2mJonYXqAN7xrbvP7Y2ZDc4B2b65hUSHYtSvOAxA\",\"y\":\"EGw0RSDRfYqFBv_0eMW4iWeepIuCCqGQ"
    "aig9464xkJ0\",\"crv\":\"secp256k1\"}";
inline constexpr std::string_view secp256k1_thumbprint =
    "P1AUWHelUrkeyeQ-muKjmgZIPZcZrOT0MZIMjf6PK2w";
inline constexpr int secp256k1_bits = 256;
inline constexpr std::string_view secp256k1_openssl_signature =
    "MEQCIGLNu6vEK_GpUqEpFi4JOrg2ttWgmyKyJKPrmO_Cv5CyAiBdS3ZvcWnpMh1k6J68U-KB99v7DDQkVHvAvPMkER85vw";
inline constexpr std::string_view secp256k1_es256k_token =
    "eyJhbGciOiJFUzI1NksifQ.eyJzdWIiOiJ2ZWN0b3IifQ._3fj4cJOiyBxo6Lvo7-yFXBZwzD6C_azylE_Qmswun-FOfwt2-domtv9PIjjlVPi"
    "vYWTwMggwmAg5NUSqG5oAg";

// ed25519
inline constexpr std::string_view ed25519_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MCowBQYDK2VwAyEAdu0XhMoPI35jglojhrKF8nw20jPq3EopqjmA02cDB5I=\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view ed25519_jwk =
    "{\"crv\":\"Ed25519\",\"x\":\"du0XhMoPI35jglojhrKF8nw20jPq3EopqjmA02cDB5I\",\"kty\":\"OKP\"}";
inline constexpr std::string_view ed25519_thumbprint =
    "bZIlv0an6_8eOVuvekVTi0Vh8ATlLVraHOnmvrqLTU8";
inline constexpr int ed25519_bits = 256;
inline constexpr std::string_view ed25519_openssl_signature =
    "EsWNo3ys-joJsxeuvkY1HiWqV8F2yeTvUugGmAVBnrlF46TUld-uU9mFEYLff8X_Iyy3nhQ50Pc1H5sZ80vgAg";
inline constexpr std::string_view ed25519_eddsa_token =
    "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ2ZWN0b3IifQ.sv-nqbXvtNUOAsl5FRd28stzV2RHZGlZvO_Eqm_HSBBEVs2fHq2AcsJDADC_QMo2bV"
    "jBLh1JGkLWpJ4Wy6wlCw";

// ed448
inline constexpr std::string_view ed448_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MEMwBQYDK2VxAzoAGfCVJxlUsKSO9pXOf0lDE0YLn7IFc/yfGgfXfZWW+YBvRYT9\n"
    "WY9aWRjmJWIbVbr4A9XShmpcAUcA\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view ed448_jwk =
    "{\"crv\":\"Ed448\",\"x\":\"GfCVJxlUsKSO9pXOf0lDE0YLn7IFc_yfGgfXfZWW-YBvRYT9WY9aWRjmJWIbVbr4A9XShmpcAUcA\",\"kt"
    "y\":\"OKP\"}";
inline constexpr std::string_view ed448_thumbprint =
    "zwvP9lb_1CycCx7gqAXxXNhxP7vtBuj6chaUq1AGPQo";
inline constexpr int ed448_bits = 456;
inline constexpr std::string_view ed448_openssl_signature =
    "3BrXUFYOFzdj7sGzbYXqpdtclcNGqafA0U-P9jh3zQOR6n0jtPlpNTsHZd6wifogXapSfc_DLfGA-wNBz4tg0T0hc6bGbtsfQlExd3CSNv36gE"
    "3kuJP6r6TtfnoCTo5p6ZuJd6PX5uXmQlJmuWWEoygA";
inline constexpr std::string_view ed448_eddsa_token =
    "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ2ZWN0b3IifQ.gOV0HVBc8INgcde9CnqHAXvesDO_PUJcMP9ltbs170SlvNMASuJ9NKKmnVMBztaJk_"
    "6yG9Vlsj6AKgGX9faZ2SIE33mJVM2tsziqEC_mK6UcOR4HNNUAZhsYOjvwl50gY2T5QTK1IBVQ8FLEwD68DRAA";

// p256 with a zero at the start of x
inline constexpr std::string_view p256_zero_x_jwk =
    "{\"kty\":\"EC\",\"x\":\"AOy9zaSQc8UGTuuvj4BQxs46Tg2NW9iKjOSflQr-rDg\",\"y\":\"Ft6EQixV2GipM2xhbbkM1mprVv-wly1w"
    "vA7Dd_T3jek\",\"crv\":\"P-256\"}";
inline constexpr std::string_view p256_zero_x_dropped_jwk =
    "{\"kty\":\"EC\",\"x\":\"7L3NpJBzxQZO66-PgFDGzjpODY1b2IqM5J-VCv6sOA\",\"y\":\"Ft6EQixV2GipM2xhbbkM1mprVv-wly1wv"
    "A7Dd_T3jek\",\"crv\":\"P-256\"}";
inline constexpr std::string_view p256_zero_x_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEAOy9zaSQc8UGTuuvj4BQxs46Tg2N\n"
    "W9iKjOSflQr+rDgW3oRCLFXYaKkzbGFtuQzWamtW/7CXLXC8DsN39PeN6Q==\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view p256_zero_x_thumbprint =
    "YEzU-ZZgYjqXjVvqfc24Ziy9mhyyJOEKpCGQ4jOA4Rw";

// p256 with a zero at the start of y
inline constexpr std::string_view p256_zero_y_jwk =
    "{\"kty\":\"EC\",\"x\":\"DfoP9BEv5iGkFqmuEEVrV9Ypis3Sd5AxRmKe5sedjfI\",\"y\":\"ANLz7JhcZ3j5aIh6qsFpmdNfnDT8z0HW"
    "kBFceR2HXRo\",\"crv\":\"P-256\"}";
inline constexpr std::string_view p256_zero_y_dropped_jwk =
    "{\"kty\":\"EC\",\"x\":\"DfoP9BEv5iGkFqmuEEVrV9Ypis3Sd5AxRmKe5sedjfI\",\"y\":\"0vPsmFxnePloiHqqwWmZ01-cNPzPQdaQ"
    "EVx5HYddGg\",\"crv\":\"P-256\"}";
inline constexpr std::string_view p256_zero_y_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEDfoP9BEv5iGkFqmuEEVrV9Ypis3S\n"
    "d5AxRmKe5sedjfIA0vPsmFxnePloiHqqwWmZ01+cNPzPQdaQEVx5HYddGg==\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view p256_zero_y_thumbprint =
    "AP8zwo6RpRr3FdCMV2me34BL1S8q97gZC1M_7KUKRDM";

// p521 with a zero at the start of x
inline constexpr std::string_view p521_zero_x_jwk =
    "{\"kty\":\"EC\",\"x\":\"AJgiVf3GUwqISNQYNBU0t-8UV6AHE4UIVik63tZpVitjW6F0Ajz06zNkgCHIl7zzG6IoB03oxev2_zeC0GI6N5"
    "GQ\",\"y\":\"APKw5o7ysC-3xFSj3ArMLfXA-Kv408Vt5zSirQlx4CqAX9TcBEOGspwD5_LMz0VFEdMNMsBW4gswGETd-tEyzDIV\",\"crv"
    "\":\"P-521\"}";
inline constexpr std::string_view p521_zero_x_dropped_jwk =
    "{\"kty\":\"EC\",\"x\":\"mCJV_cZTCohI1Bg0FTS37xRXoAcThQhWKTre1mlWK2NboXQCPPTrM2SAIciXvPMboigHTejF6_b_N4LQYjo3kZ"
    "A\",\"y\":\"APKw5o7ysC-3xFSj3ArMLfXA-Kv408Vt5zSirQlx4CqAX9TcBEOGspwD5_LMz0VFEdMNMsBW4gswGETd-tEyzDIV\",\"crv\""
    ":\"P-521\"}";
inline constexpr std::string_view p521_zero_x_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQAmCJV/cZTCohI1Bg0FTS37xRXoAcT\n"
    "hQhWKTre1mlWK2NboXQCPPTrM2SAIciXvPMboigHTejF6/b/N4LQYjo3kZAA8rDm\n"
    "jvKwL7fEVKPcCswt9cD4q/jTxW3nNKKtCXHgKoBf1NwEQ4aynAPn8szPRUUR0w0y\n"
    "wFbiCzAYRN360TLMMhU=\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view p521_zero_x_thumbprint =
    "n3mBQ7TyoJxwyvvyXmQxp85P163Qa4ayriJnken_uAA";

// p521 with a zero at the start of y
inline constexpr std::string_view p521_zero_y_jwk =
    "{\"kty\":\"EC\",\"x\":\"ADUcIct1H_Z3vdUBamd8tSKidvhb9WxSloQcwPk-QXAtjWQBjpzXuc1qGPb29wkQ4b2PQdL7TMcYX4D8l5yTaV"
    "yd\",\"y\":\"AMNz3gvt5iHlF00NCFSNFrSZyEq-Ahx4T_0I7YCr_Euok7ZSRXF52YEUJsdwHVGF7sfvnT-jEO3VUFwToSrlUqsA\",\"crv"
    "\":\"P-521\"}";
inline constexpr std::string_view p521_zero_y_dropped_jwk =
    "{\"kty\":\"EC\",\"x\":\"ADUcIct1H_Z3vdUBamd8tSKidvhb9WxSloQcwPk-QXAtjWQBjpzXuc1qGPb29wkQ4b2PQdL7TMcYX4D8l5yTaV"
    "yd\",\"y\":\"w3PeC-3mIeUXTQ0IVI0WtJnISr4CHHhP_QjtgKv8S6iTtlJFcXnZgRQmx3AdUYXux--dP6MQ7dVQXBOhKuVSqwA\",\"crv\""
    ":\"P-521\"}";
inline constexpr std::string_view p521_zero_y_pem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MIGbMBAGByqGSM49AgEGBSuBBAAjA4GGAAQANRwhy3Uf9ne91QFqZ3y1IqJ2+Fv1\n"
    "bFKWhBzA+T5BcC2NZAGOnNe5zWoY9vb3CRDhvY9B0vtMxxhfgPyXnJNpXJ0Aw3Pe\n"
    "C+3mIeUXTQ0IVI0WtJnISr4CHHhP/QjtgKv8S6iTtlJFcXnZgRQmx3AdUYXux++d\n"
    "P6MQ7dVQXBOhKuVSqwA=\n"
    "-----END PUBLIC KEY-----\n";
inline constexpr std::string_view p521_zero_y_thumbprint =
    "VexSgGgwG64REde3mibQHcdb2P7924CclbWXPzGK0CM";

// a private key
inline constexpr std::string_view rsa_private_jwk =
    "{\"kty\":\"RSA\",\"n\":\"pkudVLxFBcxlRw1_8-CVyhQdgSqHN9gylXymhYHNOe7HFNoB0RcuOtjGI21Q2TnloK-HUouvvUQjo30UWfthI"
    "8Ki_VQNKCVVz_tozkrV8pBr3EmUrAvqlWlziaixujJt3F3vrNn4m-my5WiLA2oLz0ima6dCRVGpoEvViuqNM17FO8cFRn6si3y7rsPMPe5cT4t"
    "9P82aofAUDMctolRBrSltyN7op3qJtSmma3U8-cQ0TyHnRXuDW-8i-YDUxHSjdGId5YpE-FBo1upfMTe3W2dv_b8F8IkK2O7j6KnuAojEzH5w7"
    "pE4VwIDPy0opO6FhrTy9VQhsbHLTvGvvPZVfw\",\"e\":\"AQAB\",\"d\":\"Ficrkd60yTV15nW_bmMkQTPVzF-4fLGB55Uf79gfWVDcV4R"
    "FSq_uWiuHla-Z3h5O302S1uXB5xI9NynR_Ly2r5ddtCauzALRQDArQZQJlVM08zcgJZ0-xmGyYQvGhVnzdbBT3fB5pHeI-_Ol1TIa2aXBecTh2"
    "K8szCxeCa_-WHHYFVD9T2MsMNU1hE9M2jWYzUqrcbsCt1uMtyCassdmFOsiv673INgm1yImUcZFmTcGLIwm3xOMAm2zAUkbonBtHpv2tGTn56X"
    "p7it7yJB_Mw4sWps6YtsaWXr96_sVtTPn-rd5La_rAwRiXLq-8GCBhhdHrUZu_iij-fBfI2HjCQ\",\"p\":\"0PDyUaQTkkKnaLNOQwgFjB7i"
    "_po1Ze4Wn5cQIvH5qtAkgOwky1Expp-cQ67mv8v-AOZ4eeFfJLebCL1vO-sB6zX0zRmjQPfojnFC7OX2CSCQ7n9Tk8VDt_HnRS3wVRTaDXF3En"
    "cBLDueIvfJ66qYu26d-U8LXaklbyGzba_XkTk\",\"q\":\"y7_PkQmazt3tKvEdGDdRgkTRd0oymuFwJ91CDNU1mmMti_Eok_O8_6pOOfdB7o"
    "K3xwQigJNwkRPKtsIvvjCyBnXnGO05Y24XfhZiHWOoyQ7yJRrpU-Bd55vpAp4EoMsI3OZA29wmkYa2qDI-Mu5qyYi8436qk-XXWS76SUWUdHc"
    "\",\"dp\":\"waafoEVHEmcOi_6ryXq00YKK9lhsp1U8yJsVDJ5ivQr-2jKDg6F0OC90gFKpcRgbCjCRdr0IFprJaRdR8iHE_IBcrH9XjM54TxT"
    "wZ2pXV2xEh5ehGbNaKTFeHQMP3XtfAdio-IctohZ7YYNxNSg_OHC0n63AJgWwOUjt6Ppx_Bk\",\"dq\":\"monFudB7JuSU-rkexDtRC2l_Ju"
    "eUMn1DQDlF283rdko7RaWIjY-VjqVx5-1uiKWFFuI_-R3bh25nlu76n1r37IaI3hMwMAZUs0Hu8TOh1b4MU7BxwTiwgPd0aJPKFttowYOzNg9p"
    "AYAYEsLpAmBrhqi7_CEa6EqwZ-iF1gV8cEk\",\"qi\":\"HTACGz39gvQ3dQX7nfLOvoEnprIG-hZ47vgbLYUNU40arkfjSWIG85NlLG9zBrJ"
    "sAFoywGTawHPJ2ncJeSavZyFdXbMF3EOz3hfGinj3KM-aIY7IirqZL9_RRfTSLaWqAEQZPw_eV7r7LKeYj1vHLbZjeFzruee7YFbwmfEOE9E\""
    "}";

// another private key
inline constexpr std::string_view ed25519_private_jwk =
    "{\"crv\":\"Ed25519\",\"d\":\"dh9PA09DRP5eTzR5EHMDemPRRNfD9hdiC5EK_bfRguI\",\"x\":\"CWxxsRzS1fIjEJiECM4lWYi_1-D"
    "G9fmJJwnEys6kVvc\",\"kty\":\"OKP\"}";

}  // namespace vectors

#endif
