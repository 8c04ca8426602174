//! What Rust's standard library asks of a process: threads, channels, panics, thread-local values, children, clocks.
//!
//! Owns one behaviour per name: `PROGRAM NAME` runs it, and prints the same in every run. Must not know where its threads run.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Condvar, Mutex, OnceLock, RwLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

macro_rules! behaviour {
    ($name:ident, $body:block) => {
        fn $name() $body
    };
}

behaviour!(scoped_threads_borrow, {
    let mut parts = vec![0_u64; 6];
    thread::scope(|scope| {
        for (at, part) in parts.iter_mut().enumerate() {
            scope.spawn(move || *part = (0..=at as u64 * 1000).sum());
        }
    });
    println!("{parts:?}");
});

behaviour!(channels_carry_in_order, {
    let (sender, receiver) = mpsc::sync_channel(4);
    let producer = thread::spawn(move || (0..500_u64).for_each(|value| sender.send(value).unwrap()));
    let consumer = thread::spawn(move || receiver.iter().enumerate().all(|(at, value)| at as u64 == value));
    producer.join().unwrap();
    println!("in order: {}", consumer.join().unwrap());
});

behaviour!(panic_of_a_thread_is_caught, {
    std::panic::set_hook(Box::new(|_| {}));
    let result = thread::spawn(|| -> u32 { panic!("on purpose") }).join();
    println!("{:?}", result.unwrap_err().downcast_ref::<&str>());
});

behaviour!(panic_poisons_lock, {
    std::panic::set_hook(Box::new(|_| {}));
    let lock = Arc::new(Mutex::new(5));
    let theirs = Arc::clone(&lock);
    drop(thread::spawn(move || { let _guard = theirs.lock(); panic!("on purpose") }).join());
    println!("poisoned: {}, value {}", lock.is_poisoned(), lock.lock().unwrap_or_else(|error| error.into_inner()));
});

behaviour!(panic_in_main_gives_101, {
    thread::spawn(|| println!("thread")).join().unwrap();
    std::panic::set_hook(Box::new(|_| {}));
    panic!("on purpose");
});

behaviour!(thread_local_values_are_dropped, {
    struct Loud(u32);
    impl Drop for Loud {
        fn drop(&mut self) {
            println!("dropped {}", self.0);
        }
    }
    thread_local!(static OWN: RefCell<Option<Loud>> = const { RefCell::new(None) });
    for number in 0..3 {
        thread::spawn(move || OWN.with(|own| *own.borrow_mut() = Some(Loud(number)))).join().unwrap();
    }
});

behaviour!(once_and_lazily, {
    static VALUE: OnceLock<u64> = OnceLock::new();
    static MADE: AtomicU64 = AtomicU64::new(0);
    let all: Vec<u64> = thread::scope(|scope| {
        let threads: Vec<_> = (0..6).map(|number| scope.spawn(move || *VALUE.get_or_init(|| { MADE.fetch_add(1, Ordering::SeqCst); let _ = number; 42 }))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    println!("{all:?} {}", MADE.load(Ordering::SeqCst));
});

behaviour!(locks_and_conditions, {
    let state = Arc::new((Mutex::new(0_u32), Condvar::new()));
    let threads: Vec<_> = (0..3).map(|own| {
        let state = Arc::clone(&state);
        thread::spawn(move || for _ in 0..30 {
            let mut turn = state.1.wait_while(state.0.lock().unwrap(), |turn| *turn % 3 != own).unwrap();
            *turn += 1;
            state.1.notify_all();
        })
    }).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    println!("{}", state.0.lock().unwrap());
    let timed = state.1.wait_timeout(state.0.lock().unwrap(), Duration::from_millis(20)).unwrap();
    println!("timed out: {}", timed.1.timed_out());
});

behaviour!(readers_and_writers, {
    let table = Arc::new(RwLock::new(vec![0_u64; 10]));
    let threads: Vec<_> = (0..6).map(|own: usize| {
        let table = Arc::clone(&table);
        thread::spawn(move || for at in 0..20 {
            table.write().unwrap()[(own + at) % 10] += 1;
            assert!(table.read().unwrap().iter().sum::<u64>() > 0);
        })
    }).collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    println!("{}", table.read().unwrap().iter().sum::<u64>());
});

behaviour!(park_and_unpark, {
    let main = thread::current();
    let other = thread::spawn(move || { thread::park(); main.unpark(); "unparked" });
    thread::sleep(Duration::from_millis(20));
    other.thread().unpark();
    thread::park();
    println!("{}", other.join().unwrap());
});

behaviour!(names_and_stack_sizes, {
    let named = thread::Builder::new().name("far".into()).stack_size(1 << 22).spawn(|| {
        let room = [1_u8; 3 << 20];
        (thread::current().name().map(str::to_owned), std::hint::black_box(room).iter().map(|byte| u64::from(*byte)).sum::<u64>())
    });
    println!("{:?}", named.unwrap().join().unwrap());
});

behaviour!(stack_overflow_is_told, {
    fn deep(left: u64) -> u64 {
        let room = [left; 512];
        if left == 0 { 0 } else { std::hint::black_box(room)[7] + deep(left + 1) }
    }
    thread::spawn(|| println!("{}", deep(1))).join().unwrap();
});

behaviour!(parallelism_is_at_least_one, {
    let of_main = thread::available_parallelism().unwrap();
    let of_member = thread::spawn(|| thread::available_parallelism().unwrap()).join().unwrap();
    println!("{}", of_main == of_member && of_main.get() >= 1);
});

behaviour!(instants_go_forward, {
    let begin = Instant::now();
    let middle = thread::spawn(|| { thread::sleep(Duration::from_millis(30)); Instant::now() }).join().unwrap();
    println!("{} {}", middle >= begin + Duration::from_millis(29), Instant::now() + Duration::from_millis(2) >= middle);
});

behaviour!(barrier_has_one_leader, {
    let barrier = Arc::new(Barrier::new(5));
    let threads: Vec<_> = (0..5).map(|_| { let barrier = Arc::clone(&barrier); thread::spawn(move || barrier.wait().is_leader()) }).collect();
    println!("{}", threads.into_iter().filter(|_| true).map(|thread| u32::from(thread.join().unwrap())).sum::<u32>());
});

behaviour!(tcp_echo, {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        let mut bytes = [0; 64];
        let count = peer.read(&mut bytes).unwrap();
        peer.write_all(&bytes[..count]).unwrap();
    });
    let client = thread::spawn(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(b"echo").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    });
    println!("{}", client.join().unwrap());
    server.join().unwrap();
});

behaviour!(command_output, {
    let output = thread::spawn(|| Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]).output()).join().unwrap();
    match output {
        Ok(output) => println!("{:?} {:?} {:?}", output.status.code(), String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        Err(error) => println!("{:?}", error.kind()),
    }
});

behaviour!(command_that_is_missing, {
    let kind = thread::spawn(|| Command::new("no-such-program").status().map_err(|error| error.kind())).join().unwrap();
    println!("{kind:?}");
});

behaviour!(files_and_directories, {
    thread::spawn(|| std::fs::write("made", "content")).join().unwrap().unwrap();
    let read = thread::spawn(|| std::fs::read_to_string("made")).join().unwrap().unwrap();
    println!("{read} {}", std::fs::read_dir(".").unwrap().filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_name() == "made")).count());
});

behaviour!(exit_from_a_thread, {
    thread::spawn(|| std::process::exit(17)).join().unwrap();
});

behaviour!(abort_from_a_thread, {
    thread::spawn(|| std::process::abort()).join().unwrap();
});

macro_rules! choose {
    ($wanted:expr, $($name:ident)+) => {
        match $wanted {
            $(stringify!($name) => $name(),)+
            other => panic!("no behaviour {other}"),
        }
    };
}

fn main() {
    let wanted = std::env::args().nth(1).unwrap_or_default();
    choose!(wanted.as_str(), scoped_threads_borrow channels_carry_in_order panic_of_a_thread_is_caught panic_poisons_lock
        panic_in_main_gives_101 thread_local_values_are_dropped once_and_lazily locks_and_conditions readers_and_writers
        park_and_unpark names_and_stack_sizes stack_overflow_is_told parallelism_is_at_least_one instants_go_forward
        barrier_has_one_leader tcp_echo command_output command_that_is_missing files_and_directories exit_from_a_thread
        abort_from_a_thread);
}
