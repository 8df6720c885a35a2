//! `GET /v2/{project_id}/sync-tasks/{sync_task_id}/statistics?data_type=&start_time=&end_time=`

use axum::extract::{Path, Query, State};
use control::sync::KINDS;
use control::{Control, TaskError};
use wire::v2::{StatisticData, StatisticPoint, SyncStatistic};

use crate::error::{ApiError, OmsVersion};
use crate::query::{Params, given};
use crate::reply::{Reply, json};

pub(crate) async fn handle(
    State(control): State<Control>,
    Path((project, id)): Path<(String, String)>,
    Query(query): Query<Params>,
) -> Reply {
    let ask = async {
        let text = |name: &str| given(&query, name).ok_or_else(|| TaskError::MissingQuery(name.to_owned()));
        let time = |name: &str| {
            let text = text(name)?;
            text.parse::<i64>()
                .map_err(|_| TaskError::Range(format!("`{name}`: `{text}` is not a time in milliseconds")))
        };
        let kinds = text("data_type")?
            .split(',')
            .map(|kind| {
                let known = KINDS.iter().find(|k| **k == kind.trim()).copied();
                known.ok_or_else(|| {
                    TaskError::Invalid(
                        "data_type".into(),
                        format!("`{kind}` is not one of {}", KINDS.join(", ")),
                    )
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        control.sync_statistic(&project, &id, &kinds, time("start_time")?, time("end_time")?).await
    };
    let found = ask.await.map_err(|r| ApiError::from_task_error(OmsVersion::V2, &r))?;
    let point = |(time_stamp, statistic_num)| StatisticPoint { time_stamp, statistic_num };
    let data = |(data_type, points): (_, Vec<(i64, u64)>)| StatisticData {
        data_type,
        data: points.into_iter().map(point).collect(),
    };
    json(&SyncStatistic {
        sync_task_id: id,
        statistic_time_type: if found.hourly { "ONE_HOUR" } else { "FIVE_MINUTES" },
        statistic_datas: found.data.into_iter().map(data).collect(),
    })
}
