#!/usr/bin/perl
# Forks and pipes of Perl.
use strict;
pipe(my $reader, my $writer) or die;
my $child = fork() // die;
if (!$child) {
    close $reader;
    print $writer "line $_\n" for 1 .. 20000;
    close $writer;
    exit 3;
}
close $writer;
my $lines = 0;
$lines++ while <$reader>;
waitpid($child, 0);
print "$lines ", $? >> 8, "\n";
my $output = `echo between backticks; exit 2`;
print $output, $? >> 8, "\n";
my $forked = open(my $from, "-|") // die;
if (!$forked) {
    print "from the child\n";
    exit 6;
}
print <$from>;
close $from;
print $? >> 8, "\n";
local $SIG{CHLD} = 'IGNORE';
for my $number (1 .. 10) {
    fork() // die or exit $number;
}
1 while wait() > 0;
print "all gone\n";
