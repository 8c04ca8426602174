# Perl's interpreter threads: each is a copy of the interpreter; what they share is marked.
use strict;
use warnings;
use threads;
use threads::shared;
use Thread::Queue;
use Digest::SHA qw(sha256_hex);

my %digests :shared;
my $queue = Thread::Queue->new();
my @workers = map {
    threads->create(sub {
        while (defined(my $number = $queue->dequeue())) {
            my $text = join ' ', map { $number * $_ } 1 .. 5000;
            lock(%digests);
            $digests{$number} = sha256_hex($text);
        }
    })
} 1 .. 4;
$queue->enqueue(1 .. 64);
$queue->end();
$_->join() for @workers;
print sha256_hex(join ',', map { "$_=$digests{$_}" } sort { $a <=> $b } keys %digests), "\n";
print `echo a child`;
