#!/usr/bin/env bash
# compile_check.sh COMPILER SOURCE FLAG...: compiles SOURCE and compares the compiler's answer with what SOURCE expects.
#
# Lines of SOURCE that steer it:
#   // expect: TEXT    it must not compile, and the answer must hold TEXT; several such lines: all of them
#   // flags: FLAG...  more flags
#   // without: FLAG   leaves this flag out
# Without an "expect" line it must compile. Folders other than the header's own are system headers.
set -euo pipefail

compiler=$1 source=$2
shift 2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
mapfile -t expected < <(sed -n 's|^// expect: ||p' "$source")
mapfile -t without < <(sed -n 's|^// without: ||p' "$source")
read -r -a more < <(sed -n 's|^// flags: ||p' "$source" | tr '\n' ' ') || true

flags=()
for flag in "$@"; do
  skip=no
  for unwanted in "${without[@]+"${without[@]}"}"; do
    if [[ $flag == "$unwanted" ]]; then skip=yes; fi
  done
  if [[ $flag == -I/usr/include ]]; then skip=yes; fi  # as -isystem it breaks #include_next
  if [[ $skip == yes ]]; then continue; fi
  if [[ $flag == -I* && $(realpath -m "${flag#-I}") != "$root" ]]; then
    flags+=(-isystem "${flag#-I}")
  else
    flags+=("$flag")
  fi
done

flags+=("${more[@]+"${more[@]}"}")
# Not beside -fsyntax-only: clang 22 warns of a -c that it does not use.
if [[ " ${flags[*]} " != *" -fsyntax-only "* ]]; then flags+=(-c -o /dev/null); fi

status=0
answer=$("$compiler" "${flags[@]}" "$source" 2>&1) || status=$?
fail() {
  printf '%s\n' "$answer" | head -n 60
  printf '%s: %s\n' "$source" "$1"
  exit 1
}
if [[ ${#expected[@]} -eq 0 ]]; then
  [[ $status -eq 0 ]] || fail "does not compile"
  echo "compiles, as it should"
  exit 0
fi
[[ $status -ne 0 ]] || fail "compiles, which it must not"
for text in "${expected[@]}"; do
  [[ $answer == *"$text"* ]] || fail "the compiler's answer lacks: $text"
  echo "refused, with: $text"
done
