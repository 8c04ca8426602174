"""Children of Python: every way of the subprocess module, also from many threads at once."""
import os
import subprocess
import sys
import threading


def one(number, results):
    shell = subprocess.run(f"echo shell {number}; exit {number % 5}", shell=True, capture_output=True, text=True)
    pipe = subprocess.Popen(["tr", "a-z", "A-Z"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    loud, _ = pipe.communicate(f"quiet {number}\n" * 2000)
    results[number] = (shell.stdout, shell.returncode, len(loud), loud.split("\n")[-2])


def main():
    print(sys.argv[1:])
    print(subprocess.run(["sh", "-c", "echo $COLOUR; pwd; ls -l /proc/self/fd | grep -c memfd"], cwd="/usr",
                         env={"COLOUR": "red", "PATH": os.environ["PATH"]}, capture_output=True, text=True))
    print(subprocess.run(["sh", "-c", "umask"], preexec_fn=lambda: os.umask(0o27), capture_output=True, text=True).stdout)
    print(subprocess.run(["sh", "-c", "ps -o pgid= -p $$ | tr -d ' ' | grep -cx $$"], start_new_session=True,
                         capture_output=True, text=True).stdout)
    try:
        subprocess.run(["/nonexistent/program"])
    except FileNotFoundError as error:
        print(error)
    long = subprocess.Popen(["sleep", "100"])
    try:
        long.wait(0.2)
    except subprocess.TimeoutExpired:
        long.terminate()
    print(long.wait())
    results = {}
    threads = [threading.Thread(target=one, args=(number, results)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in sorted(results):
        print(number, results[number])


main()
