//! A guest over three hosts whose connections lose, double and reorder: every interrupt, start and level reaches its processor once.
//!
//! Owns a small simulator: hosts, a bad network, processors that count what they serve, one clock. From one seed everything follows.

use dvm_apic::command::Target;
use dvm_apic::link::{Frame, Link};
use dvm_apic::local::Order;
use dvm_apic::{Command, Directory, Effect, IoApic, LocalApic, Now, Signal};
use std::collections::BTreeMap;

const HOSTS: usize = 3;
/// Of each host.
const PROCESSORS: usize = 2;
const ALL: usize = HOSTS * PROCESSORS;
const ROUNDS: u32 = 40;
const DEVICE_VECTOR: u8 = 0x81;
const STEP_NS: u64 = 1_000_000;

#[derive(Clone, Debug, PartialEq)]
enum Message {
    Signal(usize, Signal),
    EndOfInterrupt(u8),
}

/// What the network does wrong, of a hundred frames; the last two are planted faults of the receiver.
#[derive(Clone, Copy, Default)]
struct Trouble {
    lost: u64,
    doubled: u64,
    late: u64,
    forgets_numbers: bool,
    forgets_repeats: bool,
}

struct World {
    chance: u64,
    now_ns: u64,
    trouble: Trouble,
    apics: Vec<LocalApic>,
    directory: Directory,
    io: IoApic,
    links: BTreeMap<(usize, usize), Link<Message>>,
    wire: Vec<(u64, usize, usize, Frame<Message>)>,
    starts: Vec<u32>,
    served: BTreeMap<(usize, u8), u32>,
}

impl World {
    fn new(seed: u64, trouble: Trouble) -> Self {
        let apics: Vec<_> = (0..ALL).map(|cpu| LocalApic::new(cpu as u32, cpu == 0)).collect();
        let mut links = BTreeMap::new();
        for from in 0..HOSTS {
            for to in (0..HOSTS).filter(|to| *to != from) {
                links.insert((from, to), Link::default());
            }
        }
        Self {
            chance: seed * 2 + 1,
            now_ns: 0,
            trouble,
            directory: Directory::new(apics.iter().map(LocalApic::identity).collect()),
            apics,
            io: IoApic::default(),
            links,
            wire: Vec::new(),
            starts: vec![0; ALL],
            served: BTreeMap::new(),
        }
    }

    fn chance(&mut self, below: u64) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance % below
    }

    fn link(&mut self, from: usize, to: usize) -> &mut Link<Message> {
        self.links.get_mut(&(from, to)).expect("a link between any two hosts")
    }

    fn send(&mut self, from: usize, to: usize, message: Message) {
        if from == to {
            return self.arrive(message);
        }
        self.link(from, to).push(message).expect("fewer messages than may wait");
    }

    fn arrive(&mut self, message: Message) {
        match message {
            Message::Signal(cpu, signal) => {
                self.apics[cpu].accept(signal);
            }
            Message::EndOfInterrupt(vector) => {
                for (_, command) in self.io.end_of_interrupt(vector) {
                    self.command(0, None, command);
                }
            }
        }
    }

    fn command(&mut self, host: usize, sender: Option<usize>, command: Command) {
        let Some(signal) = command.signal() else { return };
        for cpu in self.directory.resolve(&command, sender) {
            self.send(host, cpu / PROCESSORS, Message::Signal(cpu, signal));
        }
    }

    fn write(&mut self, cpu: usize, offset: u32, value: u32) {
        let now = Now { ns: self.now_ns, tsc: 0 };
        match self.apics[cpu].write(offset, value, now) {
            Effect::Send(command) => self.command(cpu / PROCESSORS, Some(cpu), command),
            Effect::EndOfInterrupt { vector } => self.send(cpu / PROCESSORS, 0, Message::EndOfInterrupt(vector)),
            Effect::Renamed => self.directory.set(cpu, self.apics[cpu].identity()),
            Effect::None => {}
        }
    }

    fn interrupt(&mut self, from: usize, to: usize, mode: u32) {
        self.write(from, 0x310, (to as u32) << 24);
        self.write(from, 0x300, mode);
    }

    /// A millisecond of everything.
    fn step(&mut self) {
        self.now_ns += STEP_NS;
        for (from, to) in self.links.keys().copied().collect::<Vec<_>>() {
            self.transmit(from, to);
        }
        for (at, from, to, frame) in std::mem::take(&mut self.wire) {
            if at > self.now_ns {
                self.wire.push((at, from, to, frame));
                continue;
            }
            if self.trouble.forgets_numbers {
                frame.message.into_iter().for_each(|(_, message)| self.arrive(message));
                continue;
            }
            let now_ns = self.now_ns;
            let message = self.link(to, from).handle_frame(frame, now_ns);
            message.into_iter().for_each(|message| self.arrive(message));
        }
        (0..ALL).for_each(|cpu| self.serve(cpu));
    }

    fn transmit(&mut self, from: usize, to: usize) {
        let now_ns = self.now_ns;
        let is_faulty = self.trouble.forgets_repeats;
        let link = self.link(from, to);
        if !is_faulty {
            link.handle_timeout(now_ns);
        }
        let frames: Vec<_> = std::iter::from_fn(|| link.poll_transmit(now_ns)).collect();
        for frame in frames {
            let copies = 1 + u64::from(self.chance(100) < self.trouble.doubled);
            for _ in 0..copies {
                if self.chance(100) < self.trouble.lost {
                    continue;
                }
                let is_late = self.chance(100) < self.trouble.late;
                let delay = if is_late { self.chance(50) } else { 0 };
                self.wire.push((now_ns + delay * STEP_NS, from, to, frame.clone()));
            }
        }
    }

    fn serve(&mut self, cpu: usize) {
        while let Some(order) = self.apics[cpu].poll_order() {
            if let Order::Start { .. } = order {
                self.starts[cpu] += 1;
                self.write(cpu, 0xf0, 0x1ff);
            }
        }
        while let Some(vector) = self.apics[cpu].acknowledge() {
            *self.served.entry((cpu, vector)).or_default() += 1;
            if vector == DEVICE_VECTOR {
                assert_eq!(self.io.set_line(5, false), None);
            }
            self.write(cpu, 0xb0, 0);
        }
    }

    fn until(&mut self, what: impl Fn(&Self) -> bool) -> bool {
        for _ in 0..2000 {
            if what(self) {
                return true;
            }
            self.step();
        }
        what(self)
    }

    fn count(&self, cpu: usize, vector: u8) -> u32 {
        self.served.get(&(cpu, vector)).copied().unwrap_or(0)
    }
}

/// Plays a guest; says what went wrong.
fn play(seed: u64, trouble: Trouble) -> Result<(), String> {
    let mut world = World::new(seed, trouble);
    world.write(0, 0xf0, 0x1ff);
    for cpu in 1..ALL {
        world.interrupt(0, cpu, 0x4500);
        world.interrupt(0, cpu, 0x4608);
        world.interrupt(0, cpu, 0x4608);
    }
    if !world.until(|world| world.starts.iter().skip(1).all(|starts| *starts == 1)) {
        return Err(format!("starts: {:?}", world.starts));
    }
    program_device(&mut world);
    for round in 1..=ROUNDS {
        // Each pair has a vector of its own, sent again only when it was served: so that none may merge with another.
        for from in 0..ALL {
            for to in 0..ALL {
                world.interrupt(from, to, 0x4000 | own(from));
            }
        }
        if world.io.set_line(5, true).into_iter().fold(0, |count, command| {
            world.command(0, None, command);
            count + 1
        }) != 1
        {
            return Err(format!("round {round}: the level was still under way"));
        }
        let is_served = |world: &World| {
            let pairs = (0..ALL).flat_map(|from| (0..ALL).map(move |to| (to, own(from) as u8)));
            pairs.into_iter().all(|(to, vector)| world.count(to, vector) == round) && world.count(3, DEVICE_VECTOR) == round
        };
        if !world.until(is_served) {
            return Err(format!("round {round}: {:?}", world.served));
        }
        // Doubles that are late may still come, and the end of the level must reach the I/O APIC.
        (0..200).for_each(|_| world.step());
        if !is_served(&world) {
            return Err(format!("round {round}: more came than was sent: {:?}", world.served));
        }
    }
    match world.starts.iter().skip(1).all(|starts| *starts == 1) {
        true => Ok(()),
        false => Err(format!("started again: {:?}", world.starts)),
    }
}

fn own(from: usize) -> u32 {
    0x40 + from as u32 * 0x10
}

fn program_device(world: &mut World) {
    let entry: u64 = 3 << 56 | 1 << 15 | u64::from(DEVICE_VECTOR);
    for (select, value) in [(0x1b, entry >> 32), (0x1a, entry)] {
        assert_eq!(world.io.write_bytes(0, &[select]), None);
        assert_eq!(world.io.write_bytes(0x10, &(value as u32).to_le_bytes()), None);
    }
}

#[test]
fn each_arrives_once() {
    for seed in 0..60 {
        for trouble in [
            Trouble::default(),
            Trouble { lost: 30, ..Trouble::default() },
            Trouble { doubled: 50, late: 50, ..Trouble::default() },
            Trouble { lost: 20, doubled: 20, late: 30, ..Trouble::default() },
        ] {
            play(seed, trouble).unwrap();
        }
    }
}

#[test]
fn planted_faults_are_found() {
    let bad = Trouble { lost: 20, doubled: 20, late: 30, ..Trouble::default() };
    assert!(play(1, Trouble { forgets_numbers: true, ..bad }).is_err());
    assert!(play(1, Trouble { forgets_repeats: true, ..bad }).is_err());
}

#[test]
fn a_broadcast_reaches_all_but_its_sender() {
    let mut world = World::new(9, Trouble { lost: 30, doubled: 30, late: 30, ..Trouble::default() });
    (0..ALL).for_each(|cpu| world.write(cpu, 0xf0, 0x1ff));
    (1..ALL).for_each(|cpu| {
        world.interrupt(0, cpu, 0x4500);
        world.interrupt(0, cpu, 0x4601);
    });
    assert!(world.until(|world| world.starts.iter().skip(1).all(|starts| *starts == 1)));
    world.write(2, 0x300, 0x000c_4077);
    assert!(world.until(|world| (0..ALL).all(|cpu| world.count(cpu, 0x77) == u32::from(cpu != 2))));
    let all = Command { mode: dvm_apic::Mode::Fixed, vector: 0x78, is_level: false, target: Target::All };
    world.command(1, None, all);
    assert!(world.until(|world| (0..ALL).all(|cpu| world.count(cpu, 0x78) == 1)));
}
