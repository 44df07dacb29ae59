"""The local web app, `rankwise ui`: forms -> api -> pages. No decisions."""
