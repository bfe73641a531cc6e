use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Records of a few partitions in any order, some partitions written anew from an earlier offset: each record is in the claim that
    /// it was given, and a partition has one claim more than there were such returns.
    #[test]
    fn a_partition_has_one_claim_while_its_offsets_rise(
        records in prop::collection::vec((0..2usize, 0..4i32, 1..3u64, -3..6i64), 0..60)
    ) {
        let topics: [Arc<str>; 2] = ["events".into(), "others".into()];
        let mut builder = BatchBuilder::default();
        let mut next = HashMap::new();
        let mut expected = HashMap::new();
        let mut given = Vec::new();
        for (topic, partition, generation, step) in records {
            // A generation is of one partition alone.
            let generation = 2 * generation + topic as u64;
            let key = (topic, partition, generation);
            let returns = step < 0 && next.contains_key(&key);
            *expected.entry(key).or_insert(1) += usize::from(returns);
            let offset = next.get(&key).unwrap_or(&100) + step;
            next.insert(key, offset + 1);
            let claim = builder.claim(&topics[topic], partition, generation, offset);
            given.push((key, offset, claim as usize));
        }
        let batch = builder.finish(BatchId::new(1));
        for ((topic, partition, generation), offset, claim) in given {
            let claim = &batch.claims()[claim];
            prop_assert_eq!(&claim.topic, &topics[topic]);
            prop_assert_eq!((claim.partition, claim.generation), (partition, generation));
            prop_assert!(claim.offsets.contains(&offset));
        }
        let mut found = HashMap::new();
        for claim in batch.claims().iter() {
            let topic = usize::from(claim.topic != topics[0]);
            *found.entry((topic, claim.partition, claim.generation)).or_insert(0) += 1;
        }
        prop_assert_eq!(found, expected);
    }

    /// The next batch knows nothing of the claims of the last.
    #[test]
    fn each_batch_has_claims_of_its_own(first in 0..9i64, second in 0..9i64) {
        let topic: Arc<str> = "events".into();
        let mut builder = BatchBuilder::default();
        for offset in [first, second] {
            prop_assert_eq!(builder.claim(&topic, 0, 1, offset), 0);
            let batch = builder.finish(BatchId::new(1));
            prop_assert_eq!(&batch.claims()[0].offsets, &(offset..offset + 1));
        }
    }

    /// What stays is in the claim that it was in, and nothing else stays.
    #[test]
    fn events_go_with_their_claims(records in prop::collection::vec((0..4i32, any::<bool>()), 1..40), keep in any::<[bool; 4]>()) {
        let topic: Arc<str> = "events".into();
        let mut builder = BatchBuilder::default();
        let mut partitions = Vec::new();
        for (offset, (partition, dead)) in records.iter().enumerate() {
            let claim = builder.claim(&topic, *partition, 1, offset as i64);
            if claim as usize == partitions.len() {
                partitions.push(*partition);
            }
            let meta = RecordMeta { offset: offset as i64, timestamp: None, key: None };
            match dead {
                false => builder.keep(claim, meta, Some(b"{}"), std::iter::empty()),
                true => builder.bury(claim, meta, None, std::iter::empty(), Stage::Decode, String::new()),
            }
        }
        let mut batch = builder.finish(BatchId::new(1));
        let kept = |partition: i32| keep[partition as usize];
        let by_claim: Vec<bool> = partitions.iter().map(|partition| kept(*partition)).collect();
        let dropped = batch.keep_claims(&by_claim);
        prop_assert_eq!(dropped, records.iter().filter(|(partition, _)| !kept(*partition)).count());
        let all = batch.claims().iter().map(|claim| claim.partition);
        let expected = partitions.into_iter().filter(|partition| kept(*partition));
        prop_assert!(all.eq(expected));
        let events = batch.events().map(|event| (event.partition, event.offset, false));
        let bad = batch.dead().map(|(event, ..)| (event.partition, event.offset, true));
        let mut found: Vec<_> = events.chain(bad).collect();
        found.sort_by_key(|(_, offset, _)| *offset);
        let expected: Vec<_> = records
            .iter()
            .enumerate()
            .filter(|(_, (partition, _))| kept(*partition))
            .map(|(offset, (partition, dead))| (*partition, offset as i64, *dead))
            .collect();
        prop_assert_eq!(found, expected);
    }
}
