# Threads of Ruby: one lock for all code, so that they take turns; queues, condition variables, a thread that raises.
# Loaded here: `Digest::SHA256` loads itself at its first use, and a second thread may see it half made, natively too (digest.rb says
# so at `Digest()`).
require 'digest/sha2'

queue = SizedQueue.new(8)
results = Queue.new
workers = (1..4).map do
  Thread.new do
    while (number = queue.pop)
      words = (1..2000).map { |index| "#{number}:#{index * number}" }
      results << [number, Digest::SHA256.hexdigest(words.join(' '))]
    end
  end
end
(1..64).each { |number| queue << number }
queue.close
workers.each(&:join)
sorted = Array.new(results.size) { results.pop }.sort
puts Digest::SHA256.hexdigest(sorted.flatten.join(','))
# Calls without the lock: a pipe and sleepers.
reader, writer = IO.pipe
listener = Thread.new { reader.read }
4.times.map { |number| Thread.new { sleep 0.01 * number; writer.write(number.to_s) } }.each(&:join)
writer.close
puts listener.value.chars.sort.join
puts `echo a child`
failing = Thread.new { raise ArgumentError, 'raised in a thread' }
failing.report_on_exception = false
begin
  failing.join
rescue ArgumentError => error
  puts error.message
end
