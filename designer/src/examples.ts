export interface Example {
  title: string;
  hint: string;
  query: string;
  variables?: string;
}

const JOB_BASICS = `jobId
    jobTitle`;

export const EXAMPLES: readonly Example[] = [
  {
    title: "Latest jobs",
    hint: "The last 20 jobs: who did what, when and where.",
    query: `# The last 20 jobs that were completed.
{
  jobs(limit: 20, order: "desc") {
    jobId
    jobTitle
    workflowTitle    # the workflow, if the job has a title of its own
    created          # when the job was begun
    completed        # when it was completed
    totalDuration    # seconds
    userName
    geoLongAverage   # degrees
    geoLatAverage
  }
}
`,
  },
  {
    title: "Jobs in detail",
    hint: "Everything about the last 5 jobs themselves, and their metadata.",
    query: `{
  jobs(limit: 5, order: "desc") {
    jobId
    completedJobCursor   # pass the last one as cursor to go on from there
    teamName
    workflowId
    workflowVersionId
    workflowTitle
    workflowTags
    jobTitle
    created
    updated
    totalDuration
    activeDuration       # without the pauses
    status
    userId
    userName
    geoLongAverage
    geoLatAverage
    metadata {
      name
      value
    }
  }
}
`,
  },
  {
    title: "A table for a spreadsheet",
    hint: "One row for each job, with columns for the answers of named steps. Made for CSV.",
    query: `# One column for each step that matters: search finds a step by its id, its tag or its title.
# Put in a workflow and steps of your own.
{
  jobs(workflowTitle: "Component Inspection & Maintenance", limit: 50, order: "desc") {
    jobId
    jobTitle
    workflowId
    workflowTitle
    userName
    created
    updated
    totalDuration
    activeDuration
    geoLongAverage
    geoLatAverage
    componentCodeStep: step(search: "componentcode") {
      value
    }
    conditionBeforeStep: step(search: "Condition before") {
      substeps {
        stepTitle
        value
      }
    }
    runningTemperatureBeforeStep: step(search: "beforemaintenancerunningtemperature") {
      value
    }
    maintenanceStep: step(search: "ComponentMaintenance") {
      activeDuration
    }
    conditionAfterStep: step(search: "Condition after") {
      substeps {
        stepTitle
        value
      }
    }
    runUpStep: step(search: "Runup") {
      totalDuration
    }
    runningTemperatureAfterStep: step(search: "aftermaintenancerunningtemperature") {
      value
    }
  }
}
`,
  },
  {
    title: "Steps and answers",
    hint: "The steps of the last 5 jobs in the order of time.",
    query: `{
  jobs(limit: 5, order: "desc") {
    ${JOB_BASICS}
    steps {
      stepTitle
      stepType
      started
      completed
      value
      note
      substeps {
        stepTitle
        value
      }
    }
  }
}
`,
  },
  {
    title: "Tags of substeps",
    hint: "The tags of what was answered in forms, for the last 5 jobs.",
    query: `{
  jobs(limit: 5, order: "desc") {
    ${JOB_BASICS}
    steps {
      substeps {
        stepTag
      }
    }
  }
}
`,
  },
  {
    title: "Attachments",
    hint: "Photos and other files of the last 5 jobs, with links that are good for about an hour.",
    query: `{
  jobs(limit: 5, order: "desc") {
    ${JOB_BASICS}
    attachments {
      attachmentId
      stepId
      uniqueStepId
      stepTitle
      mimeType
      fileSize         # bytes
      downloadUrl
    }
  }
}
`,
  },
  {
    title: "Thumbnails",
    hint: "Small, medium and large pictures of the attachments of the last 5 jobs.",
    query: `{
  jobs(limit: 5, order: "desc") {
    ${JOB_BASICS}
    attachments {
      attachmentId
      thumbnails {
        name
        created
        mimeType
        fileSize
        width
        height
        downloadUrl
      }
    }
  }
}
`,
  },
  {
    title: "Reports",
    hint: "PDF reports of the last 5 jobs.",
    query: `{
  jobs(limit: 5, order: "desc") {
    ${JOB_BASICS}
    reports {
      generatedReportId
      generated
      templateName
      mimeType
      downloadUrl
    }
  }
}
`,
  },
  {
    title: "Jobs of a month",
    hint: "With variables: set the dates below the query.",
    query: `query JobsOfAMonth($since: String, $before: String) {
  jobs(createdSince: $since, createdBefore: $before, limit: 100) {
    ${JOB_BASICS}
    created
    userName
    status
  }
}
`,
    variables: `{
  "since": "2026-11-01T00:00:00Z",
  "before": "2026-12-01T00:00:00Z"
}`,
  },
  {
    title: "People and their groups",
    hint: "Everybody in the team.",
    query: `{
  users {
    emailAddress
    name
    userGroups {
      name
    }
  }
}
`,
  },
  {
    title: "Groups and their people",
    hint: "The same, asked from the other side.",
    query: `{
  groups {
    name
    permissions
    users {
      name
      emailAddress
    }
  }
}
`,
  },
  {
    title: "Scheduled jobs",
    hint: "What was planned, for whom, and how far it is.",
    query: `{
  scheduledJobs(limit: 50) {
    name
    state
    due
    priority
    users {
      name
    }
    tasks {
      taskType
      state
      jobId
    }
  }
}
`,
  },
];

/** What stands there when somebody comes for the first time. */
export const FIRST = EXAMPLES[0]!.query;
