#!/bin/bash
# Subshells, pipelines, substitutions, background jobs, here-documents and traps of a shell.
numbers() { for i in 1 2 3; do echo $i; done; }
numbers | while read -r number; do echo "got $number"; done
cat <<TEXT
here $(echo document) and $( (echo nested $(echo deeper)) )
TEXT
largest=$(numbers | sort -r | head -1)
echo "$largest"
(exit 3)
echo $?
(cd /usr && pwd)
pwd | wc -l
long=$(printf '%0100000d' 1)
echo ${#long}
(trap 'echo in the trap; exit 5' TERM; kill -TERM $BASHPID; echo never)
echo $?
trap 'echo trapped' USR1
(kill -USR1 $$)
{ sleep 0.2; echo background; } &
{ sleep 0.1; exit 7; } &
wait $!
echo $?
wait
exec 3< <(echo by process substitution)
read -r line <&3
echo "$line"
coproc cat
echo through the coprocess >&"${COPROC[1]}"
read -r line <&"${COPROC[0]}"
echo "$line"
sum=0
for i in {1..40}; do sum=$((sum + $(echo $i))); done
echo $sum
set -o pipefail
false | true
echo $?
ulimit -n 256
(ulimit -n; sh -c 'ulimit -n; ulimit -s')
(read -r word count < <(grep Threads /proc/self/status); echo "$word" "$count")
trap 'echo at the end' EXIT
