//! The simulated network: what the weather does to frames, and what a driver does with those that arrive.
//!
//! Owns loss, duplicates, delay and partitions. Must not know what a frame means.

use super::fast::Published;
use super::kernel::Arrival;
use super::pager::Stamp;
use super::seal::Seal;
use super::verdicts::Count;
use super::world::{Happening, Sabotage, World};
use dsm_fast::layout::SEQUENCE_BULK;
use dsm_proto::{Class, Contents, Frame, PageContent, Transmit};
use dsm_wire::{Epoch, GrantContent, Header, Kind, Message, Rights, VERSION};

impl World {
    pub(super) fn plan_partition(&mut self) {
        let weather = self.plan.weather;
        if weather.partitions == 0 {
            return;
        }
        let wait = self.network.between(1, 2_000_000 / weather.partitions) * 1_000_000;
        let at = self.now + wait;
        if at < self.plan.heal_ns {
            let until_ns = (at + self.network.between(1, 40) * 1_000_000).min(self.plan.heal_ns);
            let group = self.network.draw();
            self.plan_at(at, 0, Happening::Partition { until_ns, group });
        }
    }

    fn is_cut(&self, from: usize, to: usize) -> bool {
        self.partition.is_some_and(|(until, group)| self.now < until && (group >> (from % 64) & 1) != (group >> (to % 64) & 1))
    }

    pub(super) fn transmit(&mut self, from: usize, transmit: &Transmit) -> Result<(), String> {
        let to = self.plan.host_of(transmit.to);
        let pager = &mut self.hosts[from].pager;
        let stamps: Vec<Stamp> = transmit.contents.buffers().map(|buffer| pager.peek(buffer)).collect::<Result<_, _>>()?;
        if !transmit.keeps_buffers {
            transmit.contents.buffers().try_for_each(|buffer| pager.free(buffer))?;
        }
        if to >= self.hosts.len() || to == from {
            return Err(format!("host {from} sends to host {to}"));
        }
        let mut header = Header { version: VERSION, ..Header::default() };
        transmit.message.encode(&mut header);
        if transmit.class == Class::Bulk {
            header.sequence.set(SEQUENCE_BULK);
        }
        self.outcome.frames += 1;
        self.publish(from, &transmit.message, &stamps);
        self.route_parts(from, to, &transmit.message, header, &stamps);
        Ok(())
    }

    /// As the driver does: what has just been read for others may be asked for again.
    fn publish(&mut self, host: usize, message: &Message, stamps: &[Stamp]) {
        let Message::Grant { page, rights, era, count, content, .. } = *message else { return };
        let is_early = self.sabotage == Some(Sabotage::PublishWhileGranted) && content != GrantContent::Copy;
        let is_due = rights == Rights::Read || is_early;
        let published = self.plan.fast.published;
        let Some(fast) = self.hosts[host].fast.as_mut().filter(|_| is_due) else { return };
        for offset in 0..u64::from(count) {
            if !fast.rng.chance(published) {
                continue;
            }
            let stamp = stamps.get(offset as usize).copied().unwrap_or(0);
            match fast.publish(page.offset(offset), era, stamp) {
                Published::Nowhere => {}
                Published::Here => self.outcome.verdicts.add(Count::Published),
                Published::InPlaceOf => {
                    self.outcome.verdicts.add(Count::Published);
                    self.outcome.verdicts.add(Count::Evicted);
                }
            }
        }
    }

    /// As the transport does: a grant of several pages travels as grants of as many pages as fit a datagram, each on its own.
    fn route_parts(&mut self, from: usize, to: usize, message: &Message, header: Header, stamps: &[Stamp]) {
        let Message::Grant { request, page, rights, era, content, .. } = *message else {
            return self.seal(from, to, header, stamps);
        };
        if stamps.len() < 2 {
            return self.seal(from, to, header, stamps);
        }
        let pages_per_datagram = self.network.between(1, 4) as usize;
        for (index, part) in stamps.chunks(pages_per_datagram).enumerate() {
            let page = page.offset((index * pages_per_datagram) as u64);
            let count = part.len() as u16;
            let mut header = header;
            Message::Grant { request, page, rights, era, count, content }.encode(&mut header);
            self.seal(from, to, header, part);
        }
    }

    /// One datagram: its sequence is its own, also where the message was sent before.
    fn seal(&mut self, from: usize, to: usize, mut header: Header, stamps: &[Stamp]) {
        let host = &mut self.hosts[from];
        let sent = host.sequences.entry(to).or_default();
        *sent += 1;
        let seal = Seal {
            from: self.plan.node_of(from),
            to: self.plan.node_of(to),
            epoch: host.epoch,
            sequence: *sent | header.sequence.get(),
            salt: if self.sabotage == Some(Sabotage::StaleRestart) { 0 } else { host.incarnation },
        };
        seal.put(&mut header);
        self.route(from, to, header, stamps.to_vec());
    }

    pub(super) fn route(&mut self, from: usize, to: usize, header: Header, stamps: Vec<Stamp>) {
        let weather = self.weather();
        let incarnation = self.hosts[from].incarnation;
        let copies = 1 + u64::from(self.network.chance(weather.duplicates));
        for _ in 0..copies {
            let late = if self.network.chance(weather.stragglers) { self.network.below(1_000_000_000) } else { 0 };
            let at = self.now + late + self.network.between(weather.delay_ns_min, weather.delay_ns_max.max(weather.delay_ns_min));
            if self.network.chance(weather.loss) || self.is_cut(from, to) {
                continue;
            }
            self.plan_at(at, to, Happening::Deliver { to, from, incarnation, header, stamps: stamps.clone() });
        }
    }

    /// A frame comes to a host: its programs see it first, if it has any.
    pub(super) fn deliver(&mut self, to: usize, arrival: Arrival) -> Result<(), String> {
        if self.hosts[to].is_up { self.judge(to, arrival) } else { Ok(()) }
    }

    /// A frame comes to the agent.
    pub(super) fn take_up(&mut self, to: usize, arrival: &Arrival) -> Result<(), String> {
        let Arrival { from, incarnation, header, stamps } = arrival;
        if Kind::from_wire(header.kind).is_some_and(dsm_fast::is_transport) {
            return Ok(());
        }
        // The transport knows one incarnation of each peer; another one has no keys.
        let is_known = *incarnation == 0 && self.hosts[to].incarnation == 0;
        if !is_known && self.sabotage != Some(Sabotage::StaleRestart) {
            return self.deliver_stranger(to, *from, header);
        }
        self.check_seal(to, arrival)?;
        let frame = self.frame(to, *from, header, stamps)?;
        self.feed(to, frame)
    }

    /// A host that came back knows nothing and nobody knows it; even so, its frames change nothing.
    fn deliver_stranger(&mut self, to: usize, from: usize, header: &Header) -> Result<(), String> {
        if self.hosts[to].epoch == Epoch(header.epoch.get()) {
            return Ok(());
        }
        let frame = self.frame(to, from, header, &[])?;
        if matches!(frame.message, Message::Grant { .. }) {
            return Ok(());
        }
        self.feed(to, frame)
    }

    fn frame(&mut self, to: usize, from: usize, header: &Header, stamps: &[Stamp]) -> Result<Frame, String> {
        let kind = Kind::from_wire(header.kind).ok_or("a kind is not on the wire")?;
        let message = Message::decode(header, kind).map_err(|error| format!("a frame does not decode: {error:?}"))?;
        let mut contents = Contents::EMPTY;
        for stamp in stamps {
            contents.push(PageContent::Buffer(self.hosts[to].pager.fill(*stamp)));
        }
        Ok(Frame { from: self.plan.node_of(from), epoch: Epoch(header.epoch.get()), message, contents })
    }

    fn feed(&mut self, to: usize, frame: Frame) -> Result<(), String> {
        let is_old = frame.epoch != self.hosts[to].epoch;
        let buffers = self.hosts[to].pager.buffers_in_use() - frame.contents.buffers().count();
        let frames = self.outcome.frames;
        let before = *self.hosts[to].node.stats();
        self.call(to, |node, now| node.handle_frame(now, frame))?;
        let after = *self.hosts[to].node.stats();
        self.drain_once(to)?;
        if is_old {
            let is_untouched = self.outcome.frames == frames && self.hosts[to].pager.buffers_in_use() == buffers;
            if !is_untouched || after.dropped_epoch != before.dropped_epoch + 1 {
                return Err(format!("host {to} takes a frame of epoch {} in epoch {}", frame.epoch, self.hosts[to].epoch));
            }
        }
        self.drain(to)
    }
}
