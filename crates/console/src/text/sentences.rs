//! Sentences with places.

use super::sentence_table;

sentence_table! {
    as_of(at): "As of {at}", "截至 {at}";
    live_at(at): "Live, {at}", "实时，{at}";
    is_missing(field): "Required: {field}.", "缺少：{field}。";
    is_invalid(field, why): "`{field}`: {why}", "`{field}`：{why}";
    is_too_long(field, max): "`{field}` is longer than {max}.", "`{field}` 超过 {max}。";
    description_characters(which): "The description has one of the characters {which}.", "描述中含有字符 {which} 之一。";
    no_store(name): "No store is configured for region `{name}`.", "没有为区域 `{name}` 配置存储。";
    quota_reached(why): "A limit of the project is reached: {why}.", "已达到项目的上限：{why}。";
    no_such_object(key): "The source has no object `{key}`.", "源端没有对象 `{key}`。";
    refused(why): "This is not possible: {why}.", "无法执行：{why}。";
    region_of(side): "the region or endpoint of the {side}", "{side}的区域或接入点";
    key_is_set_ends_in(tail): "set, ends in …{tail}", "已设置，以 …{tail} 结尾";

    tasks_lead(project): "Object migrations of project {project}. Redis migrations have their own page.", "项目 {project} 的对象迁移。Redis 迁移有单独的页面。";
    select_named(name): "Select {name}", "选择 {name}";
    stop_named(name): "Stop {name}", "停止 {name}";
    start_named(name): "Start {name}", "启动 {name}";
    stop_ask(name): "Stop {name}?", "停止 {name}？";
    start_ask(name): "Start {name}?", "启动 {name}？";
    delete_ask(name): "Delete {name}?", "删除 {name}？";
    no_task_matches(text): "No task matches “{text}”", "没有匹配“{text}”的任务";
    without_filter(count): "Without the search there are {count}.", "不搜索时有 {count} 个。";
    batch_stopped(done): "Being stopped: {done}.", "正在停止：{done} 个。";
    batch_started(done): "Started: {done}.", "已启动：{done} 个。";
    batch_retried(done): "Failed objects are tried again in {done}.", "正在重试失败对象：{done} 个任务。";
    batch_skipped(skipped): "Skipped, because their state does not allow it or their keys are erased: {skipped}.", "因状态不允许或密钥已清除而跳过：{skipped} 个。";
    of(part, all): "{part} of {all}", "{part} / {all}";
    of_objects(part, all): "{part} of {all} objects", "{part} / {all} 个对象";
    of_all(all): "of {all}", "共 {all}";
    so_far(bytes): "{bytes} so far", "已完成 {bytes}";
    objects_so_far(objects): "{objects} objects", "{objects} 个对象";
    at_least_bytes(bytes): "at least {bytes} in all", "总计至少 {bytes}";
    percent_done(share): "{share} done", "已完成 {share}";
    took(duration): "took {duration}", "用时 {duration}";
    ran(duration): "Ran {duration}", "运行 {duration}";
    about_left(duration): "About {duration} left", "大约还需 {duration}";
    at_this_speed(speed): "at the speed of now, {speed}", "按当前速度 {speed}";
    average(speed): "average {speed}", "平均 {speed}";
    windows_a_day(count): "windows a day: {count}", "每天时段：{count}";
    causes(count): "causes: {count}", "原因：{count}";
    attempts_so_far(count): "Attempts so far: {count}.", "已尝试：{count} 次。";
    retry_says(count): "Failed objects: {count}. They are tried again; all others stay as they are.", "失败对象：{count} 个。只重试这些对象，其余保持不变。";
    outcomes_hint(all): "Nothing is called copied without a proof. The sum is every key settled so far: {all}.", "没有校验就不算已复制。合计为目前已处理的键：{all}。";
    since_and_ran(since, ran): "created {since}, ran {ran}", "创建于 {since}，运行 {ran}";
    task_is(state): "The task is now: {state}.", "任务状态：{state}。";
    what_entries(count): "{count} prefixes or keys", "{count} 个前缀或键";

    tasks_here(count): "tasks in this process: {count}", "本进程中的任务：{count}";
    of_places(places): "of {places}", "/ {places}";
    more_retrying(count): "retrying: {count}", "重试中：{count}";
    worst_of(count): "worst of {count}", "{count} 个中最大";
    objects_failed(count): "Failed objects: {count}. All other objects are settled and are not transferred again.", "失败对象：{count} 个。其余对象均已处理，不会重新传输。";
    has_failed_objects(count): "has failed objects: {count}.", "有失败对象：{count}。";

    behind_by(bytes, time): "{bytes} behind, {time}", "落后 {bytes}，{time}";
    bytes_behind(bytes): "{bytes} behind", "落后 {bytes}";
    full_copy_percent(percent): "full copy, {percent} %", "全量复制，{percent}%";
    keys_at_target(keys): "{keys} keys at the target", "目标端 {keys} 个键";
    keys(keys): "{keys} keys", "{keys} 个键";
    to_the_target(speed): "{speed} to the target", "写入目标端 {speed}";
    no_redis_matches(text): "No migration matches “{text}”", "没有匹配“{text}”的迁移";
    cutover_ask(name): "Cut over {name}?", "割接 {name}？";
    type_the_name_of(name): "Type {name} to confirm", "输入 {name} 以确认";
    migration_is(state): "The migration is now: {state}.", "迁移状态：{state}。";
    revoke_named(id): "Revoke {id}", "吊销 {id}";
}
