#!/usr/bin/env bash
# check_link.sh links|fails COMPILER FIRST_FLAG SECOND_FLAG FOLDER FLAG...: compiles FOLDER/giver.cpp and
# FOLDER/taker.cpp, each with a flag of its own ("-" is none), and links them.
set -euo pipefail

expectation=$1 compiler=$2 folder=$5
first=() second=()
if [[ $3 != - ]]; then first=("$3"); fi
if [[ $4 != - ]]; then second=("$4"); fi
shift 5
compile=() link=()
for flag in "$@"; do
  case $flag in
    -I/usr/include) ;;
    -*) compile+=("$flag") ;;
    *) link+=("$flag") ;;
  esac
done

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
"$compiler" "${compile[@]}" "${first[@]+"${first[@]}"}" -c "$folder/giver.cpp" -o "$scratch/giver.o"
"$compiler" "${compile[@]}" "${second[@]+"${second[@]}"}" -c "$folder/taker.cpp" -o "$scratch/taker.o"
status=0
answer=$("$compiler" "${compile[@]}" "$scratch/giver.o" "$scratch/taker.o" "${link[@]+"${link[@]}"}" -o "$scratch/both" 2>&1) || status=$?
fail() {
  printf '%s\n' "$answer" | head -n 40
  echo "$1"
  exit 1
}
if [[ $expectation == links ]]; then
  [[ $status -eq 0 ]] || fail "TUs with the same tags must link"
  # shellcheck disable=SC2086  # the emulator of another machine comes with arguments
  ${EMULATOR-} "$scratch/both" || fail "TUs with the same tags link, but the program fails"
  echo "links and runs, as it should"
  exit 0
fi
[[ $status -ne 0 ]] || fail "TUs with different tags link, which they must not"
[[ $answer == *"undefined reference"* && $answer == *give_result* ]] || fail "it fails to link, but not for the tags"
[[ $answer == *"axioms::v"* ]] || fail "the linker's answer does not show the tags"
printf '%s\n' "$answer" | grep -m 1 'undefined reference'
