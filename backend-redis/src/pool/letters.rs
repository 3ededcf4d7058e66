//! Dead letters, on their way from one queue to another: see `lua/letters.lua`.

use std::time::Duration;

use async_trait::async_trait;
use storage_traits::{
    Result,
    domain::{
        DeadLetter, GroupName, Incarnation, Message, OrderingKey, Origin, QueueRef, Timestamp,
    },
    pool::{DeadLetterStore, RedriveSpec, Redriven},
    support::RedriveSchedule,
};

use super::{
    Source,
    claim::missing,
    codec::{Meta, millis, read_messages},
    message::number_of,
};
use crate::{Redis, error::unexpected, server::Promise};

/// How long a queue remembers what was moved to it, if nobody tells it that it need not.
const REMEMBERED: Duration = Duration::from_hours(24);

/// What became of messages that were to be moved.
#[derive(Clone, Copy)]
enum Fate {
    /// They are where they were to go.
    Moved,
    /// They stay where they are.
    Stay,
    /// They stay, and from now on they are messages like any.
    Stranded,
}

/// Where messages are moved to.
struct Home<'h> {
    queue: &'h QueueRef,
    /// One group of the queue only.
    group: Option<&'h GroupName>,
    /// All who read the queue, instead of one.
    everybody: bool,
}

/// The name by which a queue remembers a message that was moved to it.
fn token(from: Incarnation, message: &Message) -> String {
    format!("{} {}", from.get(), message.id.sequence.get())
}

impl Redis {
    /// Moves letters, which are kept for us, to a dead-letter queue.
    pub(super) async fn move_letters(
        &self,
        queue: &QueueRef,
        source: &Source,
        rule: &DeadLetter,
        letters: Vec<Message>,
        now: Timestamp,
    ) -> Result<()> {
        let origin =
            |ttl| Origin { queue: source.queue, group: source.group.clone(), ttl }.to_text();
        let write = |letter: &Message| {
            let ttl = rule.ttl.unwrap_or(letter.ttl);
            Meta {
                posted_at: now,
                visible_at: now,
                expires_at: now.plus(ttl),
                ttl,
                key: letter.ordering_key.as_ref().map(OrderingKey::as_str),
                client: letter.client.as_str(),
                checksum: letter.checksum.as_deref(),
                origin: Some(&origin(letter.ttl)),
                retained: rule.retained,
            }
            .write(&letter.body)
        };
        let parcel = |letter| (token(queue.incarnation, letter), write(letter));
        let parcels: Vec<_> = letters.iter().map(parcel).collect();
        let home = Home { queue: &rule.queue, group: None, everybody: true };
        if !self.receive(&home, &parcels, now).await? {
            self.end_move(queue, Fate::Stay, letters.iter(), None, now).await?;
            return Err(missing(Some(rule)));
        }
        self.end_move(queue, Fate::Moved, letters.iter(), None, now).await?;
        self.counters.dead_lettered(letters.len() as u64);
        self.forget_origins(&rule.queue, parcels.iter().map(|(token, _)| token)).await
    }

    /// Stores messages that come from elsewhere; `false` if their home is gone. Without messages it
    /// only says whether it is there.
    async fn receive(
        &self,
        home: &Home<'_>,
        parcels: &[(String, Vec<u8>)],
        now: Timestamp,
    ) -> Result<bool> {
        let mut function = self.function("receive_letters", home.queue);
        function.number(millis(now)).number(millis(now.plus(REMEMBERED)));
        function.bytes(home.group.map_or("", GroupName::as_str));
        function.number(i64::from(home.everybody));
        for (token, message) in parcels {
            function.bytes(token).bytes(message);
        }
        let reply = self.call(home.queue, Promise::Change, &function).await?;
        Ok(!reply.is_nil())
    }

    /// Says what became of messages that were kept for us.
    async fn end_move<'m>(
        &self,
        queue: &QueueRef,
        fate: Fate,
        messages: impl Iterator<Item = &'m Message> + Send,
        pace: Option<(Timestamp, Timestamp)>,
        now: Timestamp,
    ) -> Result<()> {
        let mut function = self.function("end_move", queue);
        function.number(millis(now)).bytes(match fate {
            Fate::Moved => "d",
            Fate::Stay => "s",
            Fate::Stranded => "o",
        });
        match pace {
            Some((expected, next)) => function.number(millis(expected)).number(millis(next)),
            None => function.bytes("").bytes(""),
        };
        for message in messages {
            function.number(message.id.sequence.get());
        }
        self.settle_and_call(queue, Promise::Change, &function).await.map(drop)
    }

    async fn forget_origins(
        &self,
        queue: &QueueRef,
        tokens: impl Iterator<Item = &String> + Send,
    ) -> Result<()> {
        let mut function = self.function("forget_origins", queue);
        for token in tokens {
            function.bytes(token);
        }
        self.call(queue, Promise::Nothing, &function).await.map(drop)
    }
}

#[async_trait]
impl DeadLetterStore for Redis {
    async fn redrive(
        &self,
        queue: &QueueRef,
        spec: RedriveSpec,
        now: Timestamp,
    ) -> Result<Redriven> {
        let mut done = Redriven { moved: 0, orphaned: 0, more: false, last_visible_at: now };
        let Some(source) = self.source(queue).await? else { return Ok(done) };
        let mut function = self.function("take_letters", queue);
        function.number(millis(now)).number(number_of(spec.limit));
        match spec.rate {
            Some(rate) => function.number(i64::from(rate.get())),
            None => function.bytes(""),
        };
        let reply = self.settle_and_call(queue, Promise::Change, &function).await?;
        let Some(mut reply) = reply else { return Ok(done) };
        done.more = reply.number()? == 1;
        let before = Timestamp::from_millis(reply.number()?);
        let reserved = Timestamp::from_millis(reply.number()?);
        let letters = read_messages(source.queue, &mut reply)?;
        if letters.is_empty() {
            return Ok(done);
        }
        let schedule = RedriveSchedule::new(spec.rate, before, now);
        let (mut moved, mut stranded) = (Vec::new(), Vec::new());
        // Those behind one another that go to the same place go together.
        for letters in letters.chunk_by(|a, b| is_same_home(a.origin.as_ref(), b.origin.as_ref())) {
            let start = moved.len() as u64;
            if self.send_home(queue, letters, &schedule, start, now).await? {
                moved.extend(letters);
            } else {
                stranded.extend(letters);
            }
        }
        done.moved = moved.len() as u64;
        done.orphaned = stranded.len() as u64;
        if done.moved > 0 {
            done.last_visible_at = schedule.visible_at(done.moved - 1);
        }
        let correction = Some((reserved, schedule.next_free(done.moved, before)));
        if !stranded.is_empty() {
            let stranded = stranded.iter().copied();
            self.end_move(queue, Fate::Stranded, stranded, correction, now).await?;
        }
        if !moved.is_empty() {
            self.end_move(queue, Fate::Moved, moved.iter().copied(), None, now).await?;
            for letters in moved.chunk_by(|a, b| is_same_home(a.origin.as_ref(), b.origin.as_ref()))
            {
                let Some(origin) = &letters[0].origin else { continue };
                let home = QueueRef { incarnation: origin.queue, ..queue.clone() };
                let tokens: Vec<_> =
                    letters.iter().map(|letter| token(queue.incarnation, letter)).collect();
                self.forget_origins(&home, tokens.iter()).await?;
            }
        }
        Ok(done)
    }
}

impl Redis {
    /// Moves letters with one origin back; `false` if it is gone.
    async fn send_home(
        &self,
        from: &QueueRef,
        letters: &[Message],
        schedule: &RedriveSchedule,
        start: u64,
        now: Timestamp,
    ) -> Result<bool> {
        let Some(origin) = &letters[0].origin else { return Ok(false) };
        // A store files queues by their incarnation; project and name are for messages to people.
        let queue = QueueRef { incarnation: origin.queue, ..from.clone() };
        let parcels: Result<Vec<_>> = (start..)
            .zip(letters)
            .map(|(n, letter)| {
                let origin =
                    letter.origin.as_ref().ok_or_else(|| unexpected("a letter has no origin"))?;
                let visible_at = schedule.visible_at(n);
                let meta = Meta {
                    posted_at: now,
                    visible_at,
                    expires_at: visible_at.plus(origin.ttl),
                    ttl: origin.ttl,
                    key: letter.ordering_key.as_ref().map(OrderingKey::as_str),
                    client: letter.client.as_str(),
                    checksum: letter.checksum.as_deref(),
                    origin: None,
                    retained: false,
                };
                Ok((token(from.incarnation, letter), meta.write(&letter.body)))
            })
            .collect();
        let home = Home { queue: &queue, group: origin.group.as_ref(), everybody: false };
        self.receive(&home, &parcels?, now).await
    }
}

fn is_same_home(a: Option<&Origin>, b: Option<&Origin>) -> bool {
    match (a, b) {
        (Some(a), Some(b)) => (a.queue, &a.group) == (b.queue, &b.group),
        _ => false,
    }
}
